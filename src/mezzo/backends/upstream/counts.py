"""How many tokens an upstream's answer has: what it reports, and what can be told as long as it does not."""

from __future__ import annotations

from mezzo.backends.base import PredictionCounts
from mezzo.backends.upstream.wire import Usage


class TokenCounts:
    """The tokens of one request.

    An event with content has one token or more, but how many, or whether two events share one, only the upstream
    knows. So one token is certain with the first event; the rest is counted when the upstream reports, or, if it is cut
    off before that, by the events that came.
    """

    def __init__(
        self, *, estimated_prompt_tokens: int, has_prediction: bool = False, counts_per_choice: bool = False
    ) -> None:
        """Begin at nothing. counts_per_choice: a chunk's usage is that of its one choice, as vLLM's in every chunk."""
        self.num_prompt_tokens = estimated_prompt_tokens
        self.num_cached_tokens = 0
        self.prediction = PredictionCounts() if has_prediction else None
        self._counts_per_choice = counts_per_choice
        self._has_report = False
        self._total = 0
        self._by_choice: dict[int, int] = {}
        self._num_unreported_events = 0
        self._num_taken = 0

    @property
    def is_estimated(self) -> bool:
        """Whether a part of the answer, or all of it, is in no report of the upstream."""
        return not self._has_report or self._num_unreported_events > 0

    def add_content(self) -> None:
        """Note an event that had content."""
        self._num_unreported_events += 1

    def report(self, usage: Usage, index: int | None) -> bool:
        """Note what the upstream reports, in a chunk of choice `index` or, None, in one of no choice.

        Returns whether that is about the whole answer.
        """
        self._has_report = True
        self._num_unreported_events = 0
        self.num_prompt_tokens = usage.prompt_tokens
        if usage.prompt_tokens_details is not None:
            # Never more than the prompt has, since they are taken off its price.
            cached = usage.prompt_tokens_details.cached_tokens or 0
            self.num_cached_tokens = min(cached, usage.prompt_tokens)
        if self.prediction is not None and (details := usage.completion_tokens_details) is not None:
            self.prediction.num_accepted = details.accepted_prediction_tokens or 0
            self.prediction.num_rejected = details.rejected_prediction_tokens or 0
        completion = usage.completion_tokens or 0
        if index is not None and self._counts_per_choice:
            self._by_choice[index] = completion
            self._total = sum(self._by_choice.values())
            return False
        self._total = completion
        return True

    def take_certain(self) -> int:
        """Return the tokens that are certain by now and were not taken before."""
        is_begun = self._num_unreported_events > 0 and not self._has_report
        return self._take(1 if is_begun else self._total)

    def take_rest(self) -> int:
        """Return all tokens that were not taken before, estimated where there is no report."""
        return self._take(self._total + self._num_unreported_events)

    def _take(self, num_tokens: int) -> int:
        new = max(0, num_tokens - self._num_taken)
        self._num_taken += new
        return new
