"""From the chunks of an upstream's stream to the events of a generation. Knows nothing of connections."""

from __future__ import annotations

from mezzo.backends.base import ChoiceDelta, ChoiceFinished, GenerationEvent
from mezzo.backends.upstream.choice import BrokenAnswer, ChoiceReader
from mezzo.backends.upstream.counts import TokenCounts
from mezzo.backends.upstream.wire import Choice, Chunk
from mezzo.prompt.output import Piece
from mezzo.protocol.response import FinishReason


class AnswerReader:
    """Reads the chunks of one answer in order, until `end` or `cut_off`. `counts` is kept up to date.

    The finish of the last choice is held back until the upstream reports its usage, for which OpenAI's servers send one
    more chunk: what the client is told at the end is then what the upstream counted.
    """

    def __init__(self, num_choices: int, counts: TokenCounts, *, prefix: str = "") -> None:
        """prefix: text that each choice may begin with, and that is left out."""
        self.counts = counts
        self._unfinished = {index: ChoiceReader(prefix) for index in range(num_choices)}
        self._reasons: set[FinishReason] = set()
        self._held: tuple[int, FinishReason] | None = None
        self._is_complete = False

    @property
    def is_complete(self) -> bool:
        """Whether every choice has had its terminal event."""
        return self._is_complete

    def read(self, chunk: Chunk) -> list[GenerationEvent]:
        """Return what a chunk adds. Raises: BrokenAnswer."""
        choices = chunk.choices or []
        for choice in choices:
            if choice.has_content:
                self.counts.add_content()
        is_total = chunk.usage is not None and self.counts.report(
            chunk.usage, choices[0].index if choices else None
        )
        events = [event for choice in choices for event in self._read_choice(choice)]
        # An answer that failed is left to `end`: what came with the failure is still to be read.
        return events + self._release() if is_total and not self._has_failed else events

    def end(self) -> list[GenerationEvent]:
        """Return what is left when the upstream has said that it is done.

        Raises: BrokenAnswer if it cannot be, or if it failed in every choice.
        """
        if self._unfinished:
            raise BrokenAnswer("the stream ended before the answer did")
        if self._has_failed:
            raise BrokenAnswer("the upstream ended the answer with an error")
        return self._release()

    def cut_off(self) -> list[GenerationEvent]:
        """Return what is left when nothing more will come: the finish if only the usage is missing, else counts."""
        if self._held is not None and not self._has_failed:
            return self._release()
        num_tokens = self.counts.take_rest()
        return [ChoiceDelta(0, (), num_tokens)] if num_tokens else []

    @property
    def _has_failed(self) -> bool:
        return self._reasons == {"error"}

    def _read_choice(self, choice: Choice) -> list[GenerationEvent]:
        reader = self._unfinished.get(choice.index)
        if reader is None:
            if choice.has_content:
                self._held = None  # there is more that has no place
                raise BrokenAnswer(f"content for choice {choice.index}, which has ended or was not asked for")
            return []
        pieces = reader.read(choice.delta) if choice.delta is not None else []
        if choice.finish_reason is not None:
            rest, reason = reader.finish(choice.finish_reason)
            return self._finish(choice.index, (*pieces, *rest), reason)
        return self._delta(choice.index, tuple(pieces))

    def _delta(self, index: int, pieces: tuple[Piece, ...]) -> list[GenerationEvent]:
        num_tokens = self.counts.take_certain()
        return [ChoiceDelta(index, pieces, num_tokens)] if pieces or num_tokens else []

    def _finish(self, index: int, pieces: tuple[Piece, ...], reason: FinishReason) -> list[GenerationEvent]:
        del self._unfinished[index]
        self._reasons.add(reason)
        if self._unfinished:
            return [ChoiceFinished(index, pieces, self.counts.take_certain(), reason)]
        self._held = index, reason
        return self._delta(index, pieces)

    def _release(self) -> list[GenerationEvent]:
        if self._held is None:
            return []
        (index, reason), self._held = self._held, None
        self._is_complete = True
        return [ChoiceFinished(index, (), self.counts.take_rest(), reason)]
