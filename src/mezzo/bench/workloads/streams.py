"""`streams`: so many answers at a time, for one number of streams after another."""

from __future__ import annotations

import itertools
from typing import ClassVar

import msgspec

from mezzo.bench.figures import Figure, LoadFigures
from mezzo.bench.load import closed_loop
from mezzo.bench.workloads.base import Outcome, Session, streams_text


class Streams(msgspec.Struct, frozen=True, tag="streams", tag_field="name"):
    """Stories in a closed loop.

    streams               the numbers of streams kept busy, one load after another
    requests_per_stream   a load sends as many requests a stream, but at least `min_requests` together
    """

    name: ClassVar[str] = "streams"
    streams: tuple[int, ...] = (1, 8, 32)
    requests_per_stream: int = 2
    min_requests: int = 4
    max_tokens: int = 128

    async def measure(self, session: Session) -> Outcome:
        figures, skip = [], 0
        for streams in self.streams:
            count = max(self.min_requests, streams * self.requests_per_stream)
            load = session.loads.begin(f"streams, {streams}", count, streams=streams)
            stories = itertools.islice(session.stories(self.max_tokens, skip=skip), count)
            await closed_loop(load, session.target, stories, streams)
            figures += _figures(streams_text(streams), load.figures())
            skip += count
        return Outcome(figures)

    def short(self) -> Streams:
        return msgspec.structs.replace(self, requests_per_stream=1, max_tokens=min(16, self.max_tokens))


def _figures(words: str, load: LoadFigures) -> list[Figure]:
    figures = [Figure(f"throughput, {words}", "tokens/s", load.completion_tokens_per_s, "higher")]
    if load.decode_tokens_per_s is not None:
        figures.append(
            Figure(f"decode of each stream, {words}", "tokens/s", load.decode_tokens_per_s, "higher")
        )
    for name, percentiles in (("TTFT", load.ttft_ms), ("ITL", load.itl_ms)):
        if percentiles is not None:
            figures.append(Figure(f"{name} p50, {words}", "ms", percentiles.p50, "lower"))
            figures.append(Figure(f"{name} p99, {words}", "ms", percentiles.p99, "lower"))
    return figures
