"""Random sequences of acquiring, releasing and cancelling: the fair queue against a slow model, and its bounds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from mezzo.metering.fair_queue import PRIORITY_RUN, FairQueue, Place, QueueFull


@dataclass(frozen=True)
class Request:
    number: int
    workspace: str
    cost: int
    num_places: int
    has_priority: bool


@dataclass
class Model:
    """The rules of the queue, each worked out anew from everything that happened since the last idle moment."""

    capacity: int
    max_waiting: int
    waiting: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    refused: list[Request] = field(default_factory=list)
    # What was admitted, and where it started.
    history: list[tuple[Request, int]] = field(default_factory=list)
    arrived_at: dict[Request, int] = field(default_factory=dict)
    num_overtakes: int = 0

    def acquire(self, request: Request) -> None:
        self.arrived_at[request] = self.now(request)
        self.waiting.append(request)
        self.admit()
        if len(self.waiting) > self.max_waiting:
            counts = {
                r.workspace: sum(o.workspace == r.workspace for o in self.waiting) for r in self.waiting
            }
            most = max(counts.values())
            # The newest of those that have most waiting; the newcomer is the newest of all.
            refused = max(
                (r for r in self.waiting if counts[r.workspace] == most), key=lambda request: request.number
            )
            self.waiting.remove(refused)
            self.refused.append(refused)
            self.admit()

    def release(self, request: Request) -> None:
        self.running.remove(request)
        self.admit()
        if not self.running:
            self.history.clear()

    def cancel(self, request: Request) -> None:
        self.waiting.remove(request)
        self.admit()

    def admit(self) -> None:
        while self.waiting:
            request = self.next()
            if sum(r.num_places for r in self.running) + request.num_places > self.capacity:
                return
            self.history.append((request, self.start(request)))
            self.waiting.remove(request)
            self.running.append(request)
            overtakes = request.has_priority and any(not r.has_priority for r in self.waiting)
            self.num_overtakes = self.num_overtakes + 1 if overtakes else 0

    def next(self) -> Request:
        priority = [r for r in self.waiting if r.has_priority]
        standard = [r for r in self.waiting if not r.has_priority]
        line = priority if priority and not (standard and self.num_overtakes >= PRIORITY_RUN) else standard
        firsts = [
            r for r in line if not any(o.workspace == r.workspace and o.number < r.number for o in line)
        ]
        return min(firsts, key=lambda request: (self.start(request), request.number))

    def now(self, request: Request) -> int:
        return max((start for r, start in self.history if r.has_priority == request.has_priority), default=0)

    def start(self, request: Request) -> int:
        finishes = [
            start + r.cost
            for r, start in self.history
            if (r.workspace, r.has_priority) == (request.workspace, request.has_priority)
        ]
        return max([self.arrived_at[request], *finishes])


class Actual:
    """The queue under test, driven step by step."""

    def __init__(self, capacity: int, max_waiting: int) -> None:
        self.queue = FairQueue(capacity, max_waiting)
        self.tasks: dict[Request, asyncio.Task[None]] = {}
        self.places: dict[Request, Place] = {}
        self.refused: list[Request] = []

    def acquire(self, request: Request) -> None:
        self.tasks[request] = asyncio.create_task(self._run(request))

    async def _run(self, request: Request) -> None:
        try:
            self.places[request] = await self.queue.acquire(
                request.workspace,
                request.cost,
                num_places=request.num_places,
                has_priority=request.has_priority,
            )
        except QueueFull:
            self.refused.append(request)


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


ACQUIRE = st.tuples(
    st.just("acquire"),
    st.tuples(
        st.sampled_from("aaabcdefgh"),
        st.integers(1, 9),
        st.sampled_from([1, 1, 1, 2, 5]),
        st.sampled_from([False, False, True]),
    ),
)
ENDS = st.tuples(
    st.sampled_from(["release", "cancel", "cancel, release", "release, cancel"]), st.integers(0, 50)
)


@given(
    capacity=st.integers(1, 4),
    max_waiting=st.integers(0, 12),
    operations=st.lists(ACQUIRE | ACQUIRE | ENDS, max_size=80),
)
@settings(max_examples=300)
async def test_every_decision_equals_that_of_the_model(
    capacity: int, max_waiting: int, operations: list[tuple[str, object]]
) -> None:
    model, actual = Model(capacity, max_waiting), Actual(capacity, max_waiting)
    for number, (kind, argument) in enumerate(operations):
        if kind == "acquire":
            assert isinstance(argument, tuple)
            workspace, cost, num_places, has_priority = argument
            request = Request(number, workspace, cost, min(num_places, capacity), has_priority)
            model.acquire(request)
            actual.acquire(request)
        else:
            assert isinstance(argument, int)
            _end(kind, argument, model, actual)
        await settle()
        _compare(model, actual)
    # Whoever waits gets a place in the end, and every place comes back.
    while model.running:
        _end("release", 0, model, actual)
        await settle()
        _compare(model, actual)
    assert not model.waiting
    assert actual.queue.num_free_places == capacity
    assert actual.queue.num_remembered == 0
    assert all(task.done() for task in actual.tasks.values())


def _end(kind: str, index: int, model: Model, actual: Actual) -> None:
    """Release or cancel one request, or both without letting their tasks run between."""
    running = model.running[index % len(model.running)] if model.running else None
    waiting = model.waiting[index % len(model.waiting)] if model.waiting else None
    if kind in {"cancel", "cancel, release"} and waiting is not None:
        model.cancel(waiting)
        actual.tasks[waiting].cancel()
    if kind != "cancel" and running is not None:
        before = set(model.running)
        model.release(running)
        actual.places.pop(running).release()
        admitted = [request for request in model.running if request not in before]
        if kind == "release, cancel" and admitted:
            # It has its place already, and its task does not know yet.
            actual.tasks[admitted[0]].cancel()
            model.release(admitted[0])


def _compare(model: Model, actual: Actual) -> None:
    assert set(actual.places) == set(model.running)
    assert actual.refused == model.refused
    assert actual.queue.num_running == len(model.running)
    assert actual.queue.num_waiting == len(model.waiting) <= model.max_waiting
    num_taken = sum(request.num_places for request in model.running)
    assert actual.queue.num_free_places == model.capacity - num_taken >= 0


COSTS = st.lists(st.integers(1, 1000), min_size=1, max_size=12)


@given(capacity=st.integers(1, 4), costs=st.fixed_dictionaries({"a": COSTS, "b": COSTS, "c": COSTS}))
@settings(max_examples=60)
async def test_workspaces_that_wait_differ_by_at_most_a_request_of_each(
    capacity: int, costs: dict[str, list[int]]
) -> None:
    queue, admitted = FairQueue(capacity, 100), asyncio.Queue[tuple[str, int, Place]]()
    # Places that nobody has had: what waits begins at the same time for all.
    held = [await queue.acquire("z", 1) for _ in range(capacity)]

    async def run(workspace: str, cost: int) -> None:
        admitted.put_nowait((workspace, cost, await queue.acquire(workspace, cost)))

    tasks = [asyncio.create_task(run(w, cost)) for w, all_costs in costs.items() for cost in all_costs]
    await settle()
    given_to = dict.fromkeys(costs, 0)
    num_left = {workspace: len(all_costs) for workspace, all_costs in costs.items()}
    for _ in tasks:
        held.pop(0).release()
        workspace, cost, place = await admitted.get()
        held.append(place)
        waited = [name for name, num in num_left.items() if num]
        given_to[workspace] += cost
        num_left[workspace] -= 1
        for one in waited:
            for other in waited:
                assert abs(given_to[one] - given_to[other]) <= max(costs[one]) + max(costs[other])
    for place in held:
        place.release()
    assert queue.num_free_places == capacity


@given(
    capacity=st.integers(1, 3),
    own_cost=st.integers(1, 50),
    floods=st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=6),
)
@settings(max_examples=30)
async def test_nobody_waits_for_ever_behind_workspaces_that_never_stop(
    capacity: int, own_cost: int, floods: list[tuple[int, bool]]
) -> None:
    queue, admitted = FairQueue(capacity, 1000), asyncio.Queue[tuple[str, Place]]()
    tasks = []

    async def run(workspace: str, cost: int, *, has_priority: bool) -> None:
        admitted.put_nowait((workspace, await queue.acquire(workspace, cost, has_priority=has_priority)))

    def flood() -> None:
        for index, (cost, has_priority) in enumerate(floods):
            task = run(f"flood {index}", cost, has_priority=has_priority)
            tasks.append(asyncio.create_task(task))

    for _ in range(3):
        flood()
    tasks.append(asyncio.create_task(run("own", own_cost, has_priority=False)))
    tasks.append(asyncio.create_task(run("own", own_cost, has_priority=False)))
    # Until its second starts, each other workspace can start own_cost / cost times and once more; with a run of
    # priority before each standard request.
    num_others = sum(own_cost // cost + 2 for cost, _ in floods) + capacity
    bound = (num_others + 2) * (PRIORITY_RUN + 1)
    num_own = num_admitted = 0
    while num_own < 2:
        flood()
        workspace, place = await admitted.get()
        num_own += workspace == "own"
        num_admitted += 1
        assert num_admitted <= bound
        place.release()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    while not admitted.empty():
        admitted.get_nowait()[1].release()
    assert queue.num_waiting == queue.num_running == 0
