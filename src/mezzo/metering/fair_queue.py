"""Places for work on one backend, shared out between workspaces.

Whoever has used least goes first, by start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queuing",
SIGCOMM 1996): virtual time stands at the start of what was admitted last; a request starts at the virtual time of its
arrival or where the workspace's request before it finishes, whichever is later, and finishes its cost later; the
smallest start goes first. While two workspaces wait, what they were given differs by at most one request of each.

    capacity 1, at virtual time 0; workspace A waits with five requests of 100 tokens, then comes B with two of 50
    A starts at 0, 100, 200, 300, 400. Its first is admitted; B starts at 0, 50. Order: A B B A A A A.

Requests with priority are ordered among themselves in the same way and go first, but when PRIORITY_RUN of them have
gone before a standard request that waited, the next place is a standard one's. Nobody who needs fewer places
overtakes: else a request for many would wait for ever.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter, deque
from dataclasses import dataclass, field

PRIORITY_RUN = 4
# Below this many, workspaces that have waited are not worth looking through for some to forget.
_MIN_REMEMBERED = 64


class QueueFull(Exception):
    """Too many wait already, and this workspace has its share of them."""


class Place:
    """One request's right to run, until it is released."""

    def __init__(self, queue: FairQueue, num_places: int) -> None:
        self._queue = queue
        self._num_places = num_places
        self._is_held = True

    def release(self) -> None:
        """Give the place to whoever is next. Again: nothing."""
        if self._is_held:
            self._is_held = False
            self._queue._take_back(self._num_places)


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request that waits. Its future brings the place, or None if it is refused.

    arrived_at, start   in virtual time; the start is known when it is the first of its workspace
    """

    number: int
    workspace_id: str
    cost: int
    num_places: int
    line: _Line
    future: asyncio.Future[Place | None]
    arrived_at: int = 0
    start: int = 0
    is_waiting: bool = True


@dataclass(slots=True)
class _Line:
    """Those that wait with priority, or those that wait without, in virtual time.

    A start follows from what was admitted before alone, so that those who leave the line leave no gap.

    firsts     a heap of the first waiter of each workspace, by start, then by arrival
    finishes   where the last admitted request of a workspace finishes; what lies in the past may be missing
    """

    now: int = 0
    waiting: dict[str, deque[_Waiter]] = field(default_factory=dict)
    firsts: list[tuple[int, int, _Waiter]] = field(default_factory=list)
    finishes: dict[str, int] = field(default_factory=dict)
    max_remembered: int = _MIN_REMEMBERED

    def first(self) -> _Waiter | None:
        return self.firsts[0][2] if self.firsts else None

    def newest(self, workspace_id: str) -> _Waiter | None:
        waiters = self.waiting.get(workspace_id)
        return waiters[-1] if waiters else None

    def append(self, waiter: _Waiter) -> None:
        waiter.arrived_at = self.now
        waiters = self.waiting.setdefault(waiter.workspace_id, deque())
        waiters.append(waiter)
        if len(waiters) == 1:
            self._become_first(waiter)

    def advance(self, waiter: _Waiter) -> None:
        """Move virtual time to the start of a first waiter, which is admitted and is to be removed."""
        self.now = waiter.start
        self.finishes[waiter.workspace_id] = waiter.start + waiter.cost
        if len(self.finishes) > self.max_remembered:
            self.finishes = {name: finish for name, finish in self.finishes.items() if finish > self.now}
            self.max_remembered = max(_MIN_REMEMBERED, 2 * len(self.finishes))

    def remove(self, waiter: _Waiter) -> None:
        waiters = self.waiting[waiter.workspace_id]
        is_first = waiters[0] is waiter
        waiters.remove(waiter)
        if is_first:
            self._leave_firsts(waiter)
            if waiters:
                self._become_first(waiters[0])
            else:
                del self.waiting[waiter.workspace_id]

    def forget(self) -> None:
        """Let all begin level: nobody has used more than others of a backend that stands idle."""
        self.finishes.clear()

    def _become_first(self, waiter: _Waiter) -> None:
        waiter.start = max(waiter.arrived_at, self.finishes.get(waiter.workspace_id, 0))
        heapq.heappush(self.firsts, (waiter.start, waiter.number, waiter))

    def _leave_firsts(self, waiter: _Waiter) -> None:
        if self.firsts[0][2] is waiter:
            heapq.heappop(self.firsts)
        else:  # it was cancelled or refused
            self.firsts.remove((waiter.start, waiter.number, waiter))
            heapq.heapify(self.firsts)


class FairQueue:
    """Admits at most `capacity` places at a time, and lets at most `max_waiting` requests wait. For one event loop."""

    def __init__(self, capacity: int, max_waiting: int) -> None:
        if capacity < 1 or max_waiting < 0:
            raise ValueError(
                f"capacity is at least 1 and max_waiting at least 0, not {capacity} and {max_waiting}"
            )
        self._capacity = capacity
        self._max_waiting = max_waiting
        self._num_free_places = capacity
        self._num_running = 0
        self._priority, self._standard = _Line(), _Line()
        self._num_waiting = 0
        self._num_waiting_of: Counter[str] = Counter()
        self._num_overtakes = 0  # in a row: requests with priority that went before a standard one
        self._numbers = itertools.count()

    async def acquire(
        self, workspace_id: str, cost: int, *, num_places: int = 1, has_priority: bool = False
    ) -> Place:
        """Wait for a place, which must be released.

        cost: tokens that the request may use, at least 1. num_places: its choices; those beyond the capacity run one
        after the other.
        When too many wait, the newest request of the workspace with most waiting is refused: this one, or one that
        waits already if this workspace has fewer. Cancelling gives back what was waited for.
        Raises: QueueFull, ValueError.
        """
        if cost < 1 or num_places < 1:
            raise ValueError(f"cost and num_places are at least 1, not {cost} and {num_places}")
        waiter = self._append(workspace_id, cost, num_places, has_priority=has_priority)
        self._admit()
        if self._num_waiting > self._max_waiting:
            self._refuse_one()
        try:
            place = await waiter.future
        except asyncio.CancelledError:
            self._leave(waiter)
            raise
        if place is None:
            raise QueueFull
        return place

    @property
    def num_waiting(self) -> int:
        """Requests that wait."""
        return self._num_waiting

    @property
    def num_running(self) -> int:
        """Requests that have a place."""
        return self._num_running

    @property
    def num_free_places(self) -> int:
        """Places that nobody has."""
        return self._num_free_places

    @property
    def num_remembered(self) -> int:
        """Workspaces whose use is remembered: once for what had priority, once for what had none."""
        return len(self._priority.finishes) + len(self._standard.finishes)

    def _append(self, workspace_id: str, cost: int, num_places: int, *, has_priority: bool) -> _Waiter:
        waiter = _Waiter(
            number=next(self._numbers),
            workspace_id=workspace_id,
            cost=cost,
            num_places=min(num_places, self._capacity),
            line=self._priority if has_priority else self._standard,
            future=asyncio.get_running_loop().create_future(),
        )
        waiter.line.append(waiter)
        self._num_waiting += 1
        self._num_waiting_of[workspace_id] += 1
        return waiter

    def _admit(self) -> None:
        """Give places to those who are next, while there are enough."""
        while (waiter := self._next()) is not None:
            if waiter.future.cancelled():
                # It was a moment ago, and its caller has not run since.
                self._remove(waiter)
                continue
            if waiter.num_places > self._num_free_places:
                return
            waiter.line.advance(waiter)
            self._remove(waiter)
            has_overtaken = waiter.line is self._priority and bool(self._standard.waiting)
            self._num_overtakes = self._num_overtakes + 1 if has_overtaken else 0
            self._num_free_places -= waiter.num_places
            self._num_running += 1
            waiter.future.set_result(Place(self, waiter.num_places))

    def _next(self) -> _Waiter | None:
        standard = self._standard.first()
        if standard is not None and self._num_overtakes >= PRIORITY_RUN:
            return standard
        return self._priority.first() or standard

    def _refuse_one(self) -> None:
        """Refuse the newest request of the workspace with most waiting; of several such, the newest of all."""
        most = max(self._num_waiting_of.values())
        newest = [
            self._newest(workspace_id) for workspace_id, num in self._num_waiting_of.items() if num == most
        ]
        refused = max(newest, key=lambda waiter: waiter.number)
        self._remove(refused)
        if not refused.future.cancelled():
            refused.future.set_result(None)
        self._admit()  # it may have been the one that all others waited for

    def _newest(self, workspace_id: str) -> _Waiter:
        newest = (self._priority.newest(workspace_id), self._standard.newest(workspace_id))
        return max((waiter for waiter in newest if waiter is not None), key=lambda waiter: waiter.number)

    def _leave(self, waiter: _Waiter) -> None:
        """Undo what was done for a caller that was cancelled."""
        if waiter.is_waiting:
            self._remove(waiter)
            self._admit()  # others may have waited for this one
        elif not waiter.future.cancelled() and (place := waiter.future.result()) is not None:
            place.release()

    def _remove(self, waiter: _Waiter) -> None:
        waiter.is_waiting = False
        waiter.line.remove(waiter)
        self._num_waiting -= 1
        self._num_waiting_of[waiter.workspace_id] -= 1
        if not self._num_waiting_of[waiter.workspace_id]:
            del self._num_waiting_of[waiter.workspace_id]

    def _take_back(self, num_places: int) -> None:
        self._num_free_places += num_places
        self._num_running -= 1
        self._admit()
        if not self._num_running:
            self._priority.forget()
            self._standard.forget()
