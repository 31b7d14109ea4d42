"""`arrivals`: requests that come when they come, whether the server keeps up or not."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from mezzo.bench.figures import Figure
from mezzo.bench.load import open_loop, poisson_arrivals
from mezzo.bench.workloads.base import Outcome, Session


class Arrivals(msgspec.Struct, frozen=True, tag="arrivals", tag_field="name"):
    """Stories in an open loop with Poisson arrivals: `rate` requests a second on average."""

    name: ClassVar[str] = "arrivals"
    rate: float
    duration_s: float = 60.0
    max_tokens: int = 128

    async def measure(self, session: Session) -> Outcome:
        times_s = poisson_arrivals(self.rate, self.duration_s, f"{session.seed} {session.first}")
        load = session.loads.begin(f"arrivals, {self.rate:g}/s", len(times_s), rate=self.rate)
        await open_loop(load, session.target, session.stories(self.max_tokens), times_s)
        measured, words = load.figures(), f"{self.rate:g} requests/s"
        figures = []
        for name, percentiles in (("TTFT", measured.ttft_ms), ("end to end", measured.e2e_ms)):
            if percentiles is not None:
                figures.append(Figure(f"{name} p50, {words}", "ms", percentiles.p50, "lower"))
                figures.append(Figure(f"{name} p99, {words}", "ms", percentiles.p99, "lower"))
        return Outcome(figures, [] if times_s else ["nothing arrived in this time; give a longer --duration"])

    def short(self) -> Arrivals:
        return msgspec.structs.replace(
            self, duration_s=min(2.0, self.duration_s), max_tokens=min(16, self.max_tokens)
        )
