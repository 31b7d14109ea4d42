"""Requests at a time: a closed loop, in which each stream's next request follows its last, and an open one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mezzo.bench.client import ChatRequest, Sample, Target, stream_chat
from mezzo.bench.figures import LoadFigures, failure_of, figures_of


@dataclass
class Load:
    """One load while it runs, and afterwards; it can be looked at and reckoned up at any moment.

    planned   requests it will have sent
    sent      samples of all so far, some of them still being filled
    samples   those that came to an end
    """

    name: str
    planned: int
    streams: int | None = None
    rate: float | None = None
    sent: list[Sample] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    started_at: float = field(default_factory=time.perf_counter)
    _cpu_before: float = field(default_factory=time.process_time)
    _ended: tuple[float, float] | None = None

    async def send(self, target: Target, request: ChatRequest, *, due_at: float | None = None) -> Sample:
        """Send one request and keep its sample, whose times count from `due_at` where it is given."""
        sample = Sample() if due_at is None else Sample(started_at=due_at)
        self.sent.append(sample)
        await stream_chat(target, request, sample)
        self.samples.append(sample)
        return sample

    def end(self) -> None:
        """Stop the clock: what comes later is not this load's."""
        if self._ended is None:
            self._ended = self._elapsed()

    def figures(self) -> LoadFigures:
        wall_s, client_cpu_s = self._ended or self._elapsed()
        return figures_of(
            self.name,
            self.samples,
            wall_s=wall_s,
            client_cpu_s=client_cpu_s,
            streams=self.streams,
            rate=self.rate,
            unfinished=len(self.sent) - len(self.samples),
        )

    @property
    def num_begun(self) -> int:
        """Requests whose answer has begun to arrive."""
        return sum(bool(sample.event_times_s) for sample in self.sent)

    @property
    def num_failed(self) -> int:
        return sum(failure_of(sample) is not None for sample in self.samples)

    def _elapsed(self) -> tuple[float, float]:
        return time.perf_counter() - self.started_at, time.process_time() - self._cpu_before


class Loads:
    """The loads of a run, in order. The last one may be running."""

    def __init__(self) -> None:
        self.all: list[Load] = []

    def begin(
        self,
        name: str,
        planned: int,
        *,
        streams: int | None = None,
        rate: float | None = None,
    ) -> Load:
        load = Load(name, planned, streams=streams, rate=rate)
        self.all.append(load)
        return load


async def closed_loop(load: Load, target: Target, requests: Iterable[ChatRequest], streams: int) -> None:
    """Send the requests, so many at a time: a stream that has its answer takes the next one."""
    waiting = iter(requests)

    async def keep_one_stream_busy() -> None:
        for request in waiting:
            await load.send(target, request)

    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(keep_one_stream_busy())
    load.end()


async def open_loop(
    load: Load, target: Target, requests: Iterable[ChatRequest], arrivals_s: Sequence[float]
) -> None:
    """Send a request at each of the times from now, whether earlier ones are answered or not.

    Its times count from when it was due, so that no delay is left out, not even the client's own.
    """
    begin = time.perf_counter()

    async def send_at(due_at: float, request: ChatRequest) -> None:
        await asyncio.sleep(due_at - time.perf_counter())
        await load.send(target, request, due_at=due_at)

    async with asyncio.TaskGroup() as group:
        for arrival_s, request in zip(arrivals_s, requests, strict=False):  # requests may have no end
            group.create_task(send_at(begin + arrival_s, request))
    load.end()


def poisson_arrivals(rate: float, duration_s: float, seed: str) -> list[float]:
    """Draw the times at which requests arrive that know nothing of each other: `rate` a second on average."""
    pick = random.Random(f"arrivals {seed}")
    times, now = [], pick.expovariate(rate)
    while now < duration_s:
        times.append(now)
        now += pick.expovariate(rate)
    return times
