"""Conversations as the decoder is trained on them: token ids, where pictures go, and which tokens are answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from mezzo.prompt.image_tokens import ImageTokens
from mezzo.train.data.colours import NAMES
from mezzo.train.data.picture import KINDS, Turn

_NAMED = frozenset((*NAMES, *KINDS, "yes", "no", "left", "right", "above", "below"))
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True)
class Conversation:
    """Token ids of a whole conversation.

    targets   indices of tokens that are to be predicted (from the token before each): answers with their ends
    """

    token_ids: list[int]
    targets: list[int]


@dataclass(frozen=True)
class ChatFormat:
    """nano's chat format (the template in its tokenizer_config.json), with answers spelled.

    Whatever is read off a picture is trained letter by letter, one token each: a token of several letters stands for
    none of them in particular, and copying what one sees is the one thing that a small decoder does well. Names of
    shapes, colours and relations stand nowhere in the picture to be copied, and keep the tokens that the decoder knows.
    """

    tokenizer: Tokenizer
    image_id: int
    break_id: int
    end_id: int

    def image(self, rows: int, columns: int) -> list[int]:
        """Return the tokens of a picture of so many cells."""
        return ImageTokens(self.image_id, self.break_id, self.end_id).grid(rows, columns)

    def plain(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def spelled(self, text: str) -> list[int]:
        return [token_id for char in text for token_id in self.plain(char)]

    def answer(self, text: str) -> list[int]:
        """Return the tokens of an answer: of a name as it is written, of anything else spelled."""
        return self.plain(text) if text in _NAMED else self.spelled(text)

    def about_picture(
        self, turns: Sequence[Turn], rows: int, columns: int, *, image_first: bool = True
    ) -> Conversation:
        """Lay out questions about one picture and their answers."""
        end = self._control(TURN_END)
        token_ids: list[int] = []
        targets: list[int] = []
        for number, turn in enumerate(turns):
            token_ids += self._head("user", first=number == 0)
            question = self.plain(turn.question)
            if number == 0:
                image = self.image(rows, columns)
                token_ids += image + question if image_first else question + image
            else:
                token_ids += question
            token_ids += [end, *self._head("assistant", first=False)]
            answer = [*self.answer(turn.answer), end]
            targets += range(len(token_ids), len(token_ids) + len(answer))
            token_ids += answer
        return Conversation(token_ids, targets)

    def _head(self, role: str, *, first: bool) -> list[int]:
        start = [self._control(TURN_START), *self.plain(f"{role}\n")]
        return start if first else [*self.plain("\n"), *start]

    def _control(self, token: str) -> int:
        token_id = self.tokenizer.token_to_id(token)
        assert token_id is not None, token
        return int(token_id)
