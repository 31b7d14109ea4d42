"""A sequence: one row of tokens being generated, and the four counts that everything else is derived from."""

from __future__ import annotations

import enum
import sys
from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec

from mezzo.engine.drafts import NO_DRAFT, Draft, Drafter
from mezzo.engine.images import SequenceImage
from mezzo.engine.sampling_params import SamplingParams
from mezzo.engine.text import TextStream

if TYPE_CHECKING:  # the server knows sequences, but compiles no grammars
    from mezzo.engine.grammar import GrammarState

FinishReason = Literal["stop", "stop_string", "length", "model_length", "error", "abort"]
"""`stop`: the model ended its answer; `stop_string`: a string of the request did, wherever it stood."""


class TokenScore(msgspec.Struct, frozen=True, array_like=True):
    """How likely a token was where it stood.

    logprob     natural logarithm of its probability, without temperature
    is_greedy   whether none was likelier
    """

    logprob: float
    is_greedy: bool


class Status(enum.Enum):
    """Where a sequence is. Finished sequences are dropped, so there is no status for them."""

    WAITING = enum.auto()
    RUNNING = enum.auto()


class Sequence:
    """One choice of one request.

    num_prompt     tokens of the prompt
    num_tokens     prompt and completion tokens known so far
    num_computed   tokens whose keys and values are in the cache; catches up with num_tokens, step by step:
                   a prompt is caught up in chunks, a decoding sequence is always one behind
    block_table    blocks that hold the computed tokens, in order, and room for the next; between two steps any of them
                   may become another one with the same content
    num_published  blocks, from the first on, that the prefix cache lets others find
    block_keys     of the blocks that the known tokens fill, as far as they were needed; see `prefix_cache`
    cache_salt     sequences find blocks of those with the same salt
    num_cached     tokens of the prompt that were found in the cache when it was begun; None before
    arrival        number of the request, then index of the choice: the order of service
    num_siblings   further choices that will fork from this one when its prompt is computed
    images         of the prompt, in its order
    room           tokens that may still come: up to the request's limit or the end of the context
    drafter        guesses what comes next, None where nothing is guessed
    scored_from    position of the first prompt token whose probability is wanted, and nothing else is; None for answers
    scores         of prompt tokens, by their position
    grammar        where the answer stands in what it must be, None where it is free
    held_images    those whose embeddings are kept for the chunk that the sequence is at
    """

    def __init__(
        self,
        *,
        request_id: str,
        index: int,
        prompt_token_ids: list[int],
        params: SamplingParams,
        seed: int,
        arrival: tuple[int, int],
        num_siblings: int = 0,
        room: int = sys.maxsize,
        images: tuple[SequenceImage, ...] = (),
        drafter: Drafter | None = None,
        scored_from: int | None = None,
        cache_salt: bytes = b"",
    ) -> None:
        self.request_id = request_id
        self.index = index
        self.params = params
        self.seed = seed
        self.arrival = arrival
        self.num_siblings = num_siblings
        self.room = room
        self.images = images
        self.drafter = drafter
        self.scored_from = scored_from
        self.cache_salt = cache_salt
        self.scores: dict[int, TokenScore] = {}
        self.grammar: GrammarState | None = None
        self.held_images: list[SequenceImage] = []
        self.text = TextStream(params.stop)
        self.status = Status.WAITING
        self.num_prompt = len(prompt_token_ids)
        self.num_computed = 0
        self.block_table: list[int] = []
        self.num_published = 0
        self.block_keys: list[bytes] = []
        self.num_cached: int | None = None
        self.finish_reason: FinishReason | None = None
        self._token_ids = list(prompt_token_ids)
        self._completion_counts: Counter[int] = Counter()

    @property
    def num_tokens(self) -> int:
        return len(self._token_ids)

    @property
    def num_completion(self) -> int:
        return len(self._token_ids) - self.num_prompt

    @property
    def num_reusable(self) -> int:
        """The most tokens that need not be computed if they were before; logits are wanted of the one after them."""
        return (self.num_tokens if self.scored_from is None else self.scored_from) - 1

    @property
    def prompt_token_ids(self) -> list[int]:
        return self._token_ids[: self.num_prompt]

    @property
    def completion_counts(self) -> Counter[int]:
        """How often each token was produced; what the penalties look at. Read only."""
        return self._completion_counts

    def tokens_between(self, start: int, end: int) -> list[int]:
        """Return token ids of positions start to end."""
        return self._token_ids[start:end]

    def images_between(self, start: int, end: int) -> list[SequenceImage]:
        """Return the images that have tokens in positions start to end."""
        return [image for image in self.images if image.overlaps(start, end)]

    def draft(self, most: int, num_running: int) -> Draft:
        """Return a guess of what comes next, of at most so many tokens; the last token is always left to be sampled."""
        if self.drafter is None:
            return NO_DRAFT
        draft = self.drafter.propose(min(most, self.room - 1), num_running)
        return draft if self.grammar is None else draft.cut(self.grammar.num_valid(draft.token_ids))

    def append(self, token_id: int) -> None:
        """Add a token that was sampled."""
        self._token_ids.append(token_id)
        self.room -= 1
        self._completion_counts[token_id] += 1
        if self.grammar is not None:
            self.grammar.take([token_id])

    def __repr__(self) -> str:
        return f"Sequence({self.request_id}[{self.index}], {self.num_computed}/{self.num_tokens}, {self.status.name})"
