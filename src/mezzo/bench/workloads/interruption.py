"""`interruption`: what a long prompt does to those who are reading their answers, and how long it waits itself."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from mezzo.bench.client import Sample, user_request
from mezzo.bench.figures import Figure, failure_of
from mezzo.bench.load import Load
from mezzo.bench.prompts import LONG_SENTENCES, reading_prompt
from mezzo.bench.workloads.base import Outcome, Session, streams_text

# The long prompt arrives this long after every stream has begun, when they are past the prefill of each other.
SETTLE_S = 0.5
_LOOK_EVERY_S = 0.01


class Interruption(msgspec.Struct, frozen=True, tag="interruption", tag_field="name"):
    """Streams that have all begun, and a prompt of about 3,000 tokens that arrives among them and asks for one token.

    max_tokens   of each stream; it has to be running still when the long prompt is answered
    """

    name: ClassVar[str] = "interruption"
    streams: int = 8
    sentences: int = LONG_SENTENCES
    max_tokens: int = 256

    async def measure(self, session: Session) -> Outcome:
        reading = session.loads.begin("interruption, streams", self.streams, streams=self.streams)
        stories = list(itertools.islice(session.stories(self.max_tokens), self.streams))
        prompt = reading_prompt(session.seed, session.first + self.streams, self.sentences)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(reading.send(session.target, story)) for story in stories]
            await self._until_all_have_begun(reading, running)
            arriving = session.loads.begin("interruption, long prompt", 1, streams=1)
            long = await arriving.send(session.target, user_request(prompt, max_tokens=1))
            arriving.end()
        reading.end()
        return _outcome([task.result() for task in running], long)

    async def _until_all_have_begun(self, load: Load, running: Sequence[asyncio.Task[Sample]]) -> None:
        # Looked at from time to time: the path on which events arrive stays as short as it is.
        while load.num_begun < self.streams and not any(task.done() for task in running):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_EVERY_S)
        await asyncio.sleep(SETTLE_S)

    def short(self) -> Interruption:
        return msgspec.structs.replace(self, max_tokens=min(64, self.max_tokens))


def _outcome(streams: Sequence[Sample], long: Sample) -> Outcome:
    if failure_of(long) is not None:
        return Outcome([], ["no figures of the interruption: the long prompt was not answered"])
    begin = long.started_at
    end = begin + long.ttft_s
    good = [sample for sample in streams if failure_of(sample) is None]
    outlasting = [
        sample
        for sample in good
        if sample.event_times_s and sample.started_at + sample.event_times_s[-1] > end
    ]
    figures = [Figure("interruption, TTFT of the long prompt", "ms", 1000 * long.ttft_s, "lower")]
    notes = []
    if outlasting:
        worst_s = max(worst_gap_s(sample, begin, end) for sample in outlasting)
        figures.insert(0, Figure("interruption, worst gap of the streams", "ms", 1000 * worst_s, "lower"))
    if len(outlasting) < len(streams):
        notes.append(
            f"only {len(outlasting)} of {streams_text(len(streams))} were still running when the long prompt was "
            "answered, and count; more --max-tokens keep them longer"
        )
    return Outcome(figures, notes)


def worst_gap_s(sample: Sample, begin: float, end: float) -> float:
    """Return the longest gap between events that reaches into a time, on the clock of `started_at`; 0 if none does."""
    times = [sample.started_at + time_s for time_s in sample.event_times_s]
    return max(
        (after - before for before, after in itertools.pairwise(times) if after > begin and before < end),
        default=0.0,
    )
