"""One server, one workload after another; what is measured is kept, whenever it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from mezzo.bench.client import Message, Target
from mezzo.bench.figures import Figure, LoadFigures
from mezzo.bench.load import Loads
from mezzo.bench.server import warm_up
from mezzo.bench.workloads import AnyWorkload
from mezzo.bench.workloads.base import Session

DEFAULT_SEED = 2505
# Every measurement has prompts of its own: so many numbers for each round, and in it for each workload.
_NUMBERS_PER_ROUND = 1_000_000
_NUMBERS_PER_WORKLOAD = 100_000


class Result(msgspec.Struct, frozen=True):
    """One workload, measured. is_complete: False where it was stopped before its end; then it has no figures."""

    workload: AnyWorkload
    is_complete: bool
    loads: list[LoadFigures]
    figures: list[Figure]
    notes: list[str]

    @property
    def num_failed(self) -> int:
        return sum(load.num_failed for load in self.loads)


def first_number(round_number: int, index: int) -> int:
    """Where the prompts of a round's workload begin. Rounds count from 1; number 0 is the warm-up's."""
    return round_number * _NUMBERS_PER_ROUND + index * _NUMBERS_PER_WORKLOAD


async def measure(workload: AnyWorkload, session: Session) -> Result:
    """Do a workload once."""
    outcome = await workload.measure(session)
    return Result(workload, True, _figures(session.loads), outcome.figures, outcome.notes)


class Run:
    """A run and its results so far.

    loads   those of the workload that is being measured, or warmed up for
    phase   what is being done, in words
    """

    def __init__(
        self,
        target: Target,
        workloads: Sequence[AnyWorkload],
        *,
        seed: int = DEFAULT_SEED,
        own: Sequence[tuple[Message, ...]] = (),
    ) -> None:
        self.started_at = datetime.now(UTC)
        self.seed = seed
        self.results: list[Result] = []
        self.loads = Loads()
        self.phase = "beginning"
        self._target = target
        self._workloads = workloads
        self._own = own
        self._current: AnyWorkload | None = None

    async def run(self, *, warm: bool, on_result: Callable[[Result], None]) -> None:
        """Warm the server up if wanted, then measure each workload. Raises: mezzo.bench.server.NotMeasurable."""
        if warm:
            for index, workload in enumerate(self._workloads):
                self.phase = f"warming up: {workload.name}"
                await warm_up(self._target, workload, seed=self.seed, first=first_number(0, index))
        for index, workload in enumerate(self._workloads):
            self.phase = workload.name
            self._current = workload
            self.loads = Loads()
            session = Session(self._target, self.seed, first_number(1, index), self._own, self.loads)
            self.results.append(await measure(workload, session))
            self._current = None
            on_result(self.results[-1])

    def stop(self) -> None:
        """Keep what was measured of the workload that did not come to its end."""
        if self._current is not None and self.loads.all:
            note = "stopped before its end"
            self.results.append(Result(self._current, False, _figures(self.loads), [], [note]))
            self._current = None


def _figures(loads: Loads) -> list[LoadFigures]:
    return [load.figures() for load in loads.all]
