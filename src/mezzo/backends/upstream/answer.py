"""From the chunks of an upstream's stream to the events of a generation. Knows nothing of connections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mezzo.backends.base import ChoiceDelta, ChoiceFinished, GenerationEvent
from mezzo.backends.upstream.choice import BrokenAnswer, ChoiceReader
from mezzo.backends.upstream.counts import TokenCounts
from mezzo.backends.upstream.wire import Choice, Chunk
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
        self._fault: BrokenAnswer | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every choice has had its terminal event."""
        return self._is_complete

    def read(self, chunks: Iterable[Chunk]) -> list[GenerationEvent]:
        """Return what chunks add, as few events as will do. `raise_fault` then tells of one that makes no sense."""
        events: list[GenerationEvent] = []
        try:
            for chunk in chunks:
                if not self._is_complete:
                    self._read(chunk, events)
        except BrokenAnswer as fault:
            self._fault = fault
        return events

    def raise_fault(self) -> None:
        """Raises: BrokenAnswer for a chunk that made no sense, once what came before it was returned by `read`."""
        if self._fault is not None:
            raise self._fault

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

    def _read(self, chunk: Chunk, events: list[GenerationEvent]) -> None:
        choices = chunk.choices or []
        for choice in choices:
            if choice.has_content:
                self.counts.add_content()
        is_total = chunk.usage is not None and self.counts.report(
            chunk.usage, choices[0].index if choices else None
        )
        for choice in choices:
            self._read_choice(choice, events)
        # An answer that failed is left to `end`: what came with the failure is still to be read.
        if is_total and not self._has_failed:
            for event in self._release():
                _add(events, event)

    def _read_choice(self, choice: Choice, events: list[GenerationEvent]) -> None:
        reader = self._unfinished.get(choice.index)
        if reader is None:
            if choice.has_content:
                self._held = None  # there is more that has no place
                raise BrokenAnswer(f"content for choice {choice.index}, which has ended or was not asked for")
            return
        pieces = reader.read(choice.delta) if choice.has_content and choice.delta is not None else []
        reason: FinishReason | None = None
        if choice.finish_reason is not None:
            rest, reason = reader.finish(choice.finish_reason)
            pieces += rest
        num_tokens = self.counts.take_certain()
        if reason is not None and self._finish(choice.index, reason):
            _add(events, ChoiceFinished(choice.index, tuple(pieces), num_tokens, reason))
        elif pieces or num_tokens:
            _add(events, ChoiceDelta(choice.index, tuple(pieces), num_tokens))

    def _finish(self, index: int, reason: FinishReason) -> bool:
        """Note the end of a choice, and return whether it can be told now: the last one is held back."""
        del self._unfinished[index]
        self._reasons.add(reason)
        if not self._unfinished:
            self._held = index, reason
        return bool(self._unfinished)

    def _release(self) -> list[GenerationEvent]:
        if self._held is None:
            return []
        (index, reason), self._held = self._held, None
        self._is_complete = True
        return [ChoiceFinished(index, (), self.counts.take_rest(), reason)]


def _add(events: list[GenerationEvent], event: GenerationEvent) -> None:
    """Append an event, as one with the last where that is of the same choice."""
    last = events[-1] if events else None
    if isinstance(last, ChoiceDelta) and last.index == event.index:
        events[-1] = replace(
            event, pieces=last.pieces + event.pieces, num_tokens=last.num_tokens + event.num_tokens
        )
    else:
        events.append(event)
