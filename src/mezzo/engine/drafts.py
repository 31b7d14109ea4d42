"""Guesses of what a sequence says next, so that one step may bring several tokens.

A draft is checked by the step that computes it: the model's own choice is sampled at each of its places, with the
random number of that place, and the draft holds as far as the two agree. So a text is the same with drafts and without,
and its distribution is that of the model, at any temperature (for a draft that is one text this is the rejection rule
of arXiv 2211.17192 exactly: a token is accepted with the probability that the model gives it).

Two texts are followed: one that the caller expects (predicted outputs), and the sequence's own, prompt included, where
what stands after the same few tokens is guessed to come again: prompt lookup
(https://github.com/apoorvumang/prompt-lookup-decoding).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MAX_LOOKED_UP = 8192  # tokens of a prompt: an index of a whole book would cost more than it finds
_LOOKUP_NGRAM, _PREDICTION_NGRAM = 3, 2
_CERTAIN = 4  # tokens that hold one after the other
_FIRST_LOOKUP, _FIRST_PREDICTION, _LEAST = 3, 16, 3
_MEMORY = 0.7  # how much of the estimate of a draft's worth is kept with each new one
_PAUSE = 24  # tokens without a draft, after drafts that did not pay


@dataclass(frozen=True)
class Draft:
    """Tokens that may come next. is_predicted: they are the caller's, not looked up."""

    token_ids: tuple[int, ...] = ()
    is_predicted: bool = False

    def __len__(self) -> int:
        return len(self.token_ids)

    def cut(self, length: int) -> Draft:
        """Return the beginning of it."""
        return Draft(self.token_ids[:length], self.is_predicted)


NO_DRAFT = Draft()


class Drafter:
    """Proposes drafts for one sequence, and learns from what became of them."""

    def __init__(
        self, prompt: Sequence[int], prediction: Sequence[int] = (), *, row_cost: float = 0.03
    ) -> None:
        """row_cost: time of one more row in a step, as a share of what a step takes whatever its rows."""
        self._row_cost = row_cost
        self._prediction = _Expected(prediction, _PREDICTION_NGRAM) if prediction else None
        self._own = _Followed(prompt[-_MAX_LOOKED_UP:], _LOOKUP_NGRAM)
        self._predicted = _Lengths(_FIRST_PREDICTION)
        self._looked_up = _Lengths(_FIRST_LOOKUP)
        self._pause = 0

    def propose(self, most: int, num_running: int) -> Draft:
        """Return a draft of at most so many tokens, or none where it would hardly pay.

        num_running: sequences that share the step.
        """
        if most <= 0:
            return NO_DRAFT
        if self._prediction is not None:
            ahead = self._prediction.ahead(min(most, self._predicted.length))
            if ahead and self._predicted.pays(self._row_cost * num_running):
                return Draft(ahead, is_predicted=True)
        if self._pause == 0 and (ahead := self._own.ahead(min(most, self._looked_up.length))):
            if self._looked_up.pays(self._row_cost * num_running):
                return Draft(ahead)
            self._pause = _PAUSE
            self._looked_up = _Lengths(_FIRST_LOOKUP)  # and then try again, shortly
        return NO_DRAFT

    def learn(self, draft: Draft, num_accepted: int, token_ids: Sequence[int]) -> None:
        """Take note of the tokens that a step has added, of which so many were the draft's."""
        if draft:
            lengths = self._predicted if draft.is_predicted else self._looked_up
            lengths.learn(len(draft), num_accepted)
        for token_id in token_ids:
            self._own.append(token_id)
        self._own.follow(token_ids, self._own.end(_LOOKUP_NGRAM))
        if self._prediction is not None:
            self._prediction.follow(token_ids, self._own.end(_PREDICTION_NGRAM))
        self._pause = max(0, self._pause - len(token_ids))


class _Followed:
    """A text, and the place in it that the sequence seems to have come to."""

    def __init__(self, token_ids: Iterable[int], ngram: int) -> None:
        self._token_ids: list[int] = []
        self._ngram = ngram
        self._after: dict[tuple[int, ...], list[int]] = {}  # n-gram -> the places behind it, in order
        self._at: int | None = None
        for token_id in token_ids:
            self.append(token_id)

    def append(self, token_id: int) -> None:
        """Let the text go on."""
        place = len(self._token_ids)
        if place >= self._ngram:
            self._after.setdefault(tuple(self._token_ids[place - self._ngram :]), []).append(place)
        self._token_ids.append(token_id)

    def end(self, length: int) -> tuple[int, ...]:
        """Return its last tokens."""
        return tuple(self._token_ids[-length:])

    def ahead(self, length: int) -> tuple[int, ...]:
        """Return what comes next in the text, () where the sequence is not in it."""
        return () if self._at is None else tuple(self._token_ids[self._at : self._at + length])

    def follow(self, token_ids: Iterable[int], recent: tuple[int, ...]) -> None:
        """Move on by the tokens that the sequence has got; `recent` are its last ones."""
        for token_id in token_ids:
            if self._at is not None:
                self._at = self._at + 1 if self.ahead(1) == (token_id,) else None
        if not self.ahead(1):
            places = self._after.get(recent)
            self._at = places[-1] if places else None


class _Expected(_Followed):
    """A text that is followed from its beginning, and gone back to near where it was left."""

    def __init__(self, token_ids: Iterable[int], ngram: int) -> None:
        super().__init__(token_ids, ngram)
        self._at: int = 0
        # Where the sequence said something else; None while it follows for certain.
        self._left_at: int | None = None
        self._num_followed = 0

    def follow(self, token_ids: Iterable[int], recent: tuple[int, ...]) -> None:
        for token_id in token_ids:
            if self.ahead(1) == (token_id,):
                self._num_followed += 1
                if self._num_followed >= _CERTAIN:
                    self._left_at = None
            else:
                self._num_followed = 0
                if self._left_at is None:
                    self._left_at = self._at
            # Also where it differs: one token in place of another is the most frequent change of a text.
            self._at += 1
        if self._left_at is None or self._num_followed:
            return
        # Two tokens may stand in many places. The next one behind where the text was left is the likeliest, and until
        # some tokens there have held, what was left is remembered.
        places = self._after.get(recent, [])
        index = bisect_left(places, self._left_at)
        if index < len(places):
            self._at = places[index]


class _Lengths:
    """How long drafts of one kind should be, by how far the last ones held."""

    def __init__(self, first: int) -> None:
        self.length = first
        self._worth = 0.5  # the share of drafted tokens that holds, estimated; of none, one has to be tried

    def pays(self, cost: float) -> bool:
        """cost: of a row, as a share of what a step takes for each of its sequences.

        With n sequences in the batch a step brings n tokens anyway, so a draft has to be better.
        """
        return self._worth > cost / (1 + cost)

    def learn(self, num_drafted: int, num_accepted: int) -> None:
        self._worth = _MEMORY * self._worth + (1 - _MEMORY) * num_accepted / num_drafted
        self.length = 2 * num_drafted if num_accepted == num_drafted else max(_LEAST, num_accepted + 1)
