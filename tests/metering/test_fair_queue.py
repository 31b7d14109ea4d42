"""Places shared between workspaces, by hand-made scenes."""

from __future__ import annotations

import asyncio

import pytest

from mezzo.metering.fair_queue import PRIORITY_RUN, FairQueue, Place, QueueFull


class Scene:
    """A queue, and the names of requests in the order in which they got their places."""

    def __init__(self, capacity: int = 1, max_waiting: int = 1000) -> None:
        self.queue = FairQueue(capacity, max_waiting)
        self.order: list[str] = []
        self.refused: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.running: list[Place] = []

    async def ask(
        self, name: str, cost: int = 100, *, num_places: int = 1, has_priority: bool = False
    ) -> None:
        """Ask for a place for a request whose workspace is the first letter of its name."""
        self.tasks[name] = asyncio.create_task(self._run(name, cost, num_places, has_priority=has_priority))
        await settle()

    async def end(self) -> None:
        """End the request that has run longest."""
        self.running.pop(0).release()
        await settle()

    async def end_all(self) -> str:
        """End one request after the other until none is left, and return the order of all."""
        while self.running:
            await self.end()
        assert self.queue.num_waiting == self.queue.num_running == 0
        return " ".join(self.order)

    async def _run(self, name: str, cost: int, num_places: int, *, has_priority: bool) -> None:
        try:
            place = await self.queue.acquire(name[0], cost, num_places=num_places, has_priority=has_priority)
        except QueueFull:
            self.refused.append(name)
        else:
            self.order.append(name)
            self.running.append(place)


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(3):
        await asyncio.sleep(0)


class TestPlaces:
    async def test_there_are_as_many_as_the_capacity(self) -> None:
        scene = Scene(capacity=2)
        for name in ("a1", "a2", "a3"):
            await scene.ask(name)
        assert (scene.queue.num_running, scene.queue.num_waiting, scene.queue.num_free_places) == (2, 1, 0)
        await scene.end()
        assert scene.order == ["a1", "a2", "a3"]
        await scene.end()
        assert (scene.queue.num_running, scene.queue.num_waiting, scene.queue.num_free_places) == (1, 0, 1)

    async def test_a_place_is_released_once(self) -> None:
        queue = FairQueue(1, 0)
        place = await queue.acquire("a", 1)
        place.release()
        place.release()
        assert (queue.num_running, queue.num_free_places) == (0, 1)

    async def test_a_free_place_is_given_without_a_wait(self) -> None:
        acquiring = FairQueue(1, 0).acquire("a", 1)
        with pytest.raises(StopIteration) as done:
            acquiring.send(None)
        done.value.value.release()

    async def test_choices_take_a_place_each(self) -> None:
        scene = Scene(capacity=4)
        await scene.ask("a1", num_places=3)
        await scene.ask("b1", num_places=2)
        assert scene.order == ["a1"]
        await scene.end()
        assert scene.order == ["a1", "b1"]
        assert scene.queue.num_free_places == 2

    async def test_more_choices_than_places_take_all_of_them(self) -> None:
        scene = Scene(capacity=2)
        await scene.ask("a1", num_places=8)
        assert scene.queue.num_free_places == 0
        assert await scene.end_all() == "a1"
        assert scene.queue.num_free_places == 2

    async def test_nobody_overtakes_a_request_for_many(self) -> None:
        scene = Scene(capacity=2)
        for name in ("a1", "b1"):
            await scene.ask(name)
        await scene.ask("c1", num_places=2)
        await scene.ask("d1")
        await scene.end()
        assert scene.order == ["a1", "b1"]
        assert await scene.end_all() == "a1 b1 c1 d1"

    @pytest.mark.parametrize(("cost", "num_places"), [(0, 1), (1, 0)])
    async def test_nothing_is_no_request(self, cost: int, num_places: int) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            await FairQueue(1, 1).acquire("a", cost, num_places=num_places)

    @pytest.mark.parametrize(("capacity", "max_waiting"), [(0, 1), (1, -1)])
    def test_a_queue_has_places(self, capacity: int, max_waiting: int) -> None:
        with pytest.raises(ValueError, match="capacity is at least 1"):
            FairQueue(capacity, max_waiting)


class TestFairness:
    async def test_a_flood_delays_the_first_request_of_another_by_the_one_that_runs(self) -> None:
        scene = Scene(capacity=4, max_waiting=600)
        for number in range(504):
            await scene.ask(f"a{number}")
        assert scene.queue.num_waiting == 500
        await scene.ask("b1")
        await scene.end()
        assert scene.order[4:] == ["b1"]

    async def test_workspaces_take_turns(self) -> None:
        scene = Scene()
        for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
            await scene.ask(name)
        assert await scene.end_all() == "a1 b1 c1 a2 b2 a3 a4"

    async def test_turns_are_as_long_as_requests_are_dear(self) -> None:
        # The example of the module.
        scene = Scene()
        for name in ("a1", "a2", "a3", "a4", "a5"):
            await scene.ask(name, 100)
        for name in ("b1", "b2"):
            await scene.ask(name, 50)
        assert await scene.end_all() == "a1 b1 b2 a2 a3 a4 a5"

    async def test_who_comes_later_gets_nothing_for_the_time_before(self) -> None:
        scene = Scene()
        for number in range(1, 7):
            await scene.ask(f"a{number}")
        for _ in range(3):
            await scene.end()
        for number in range(1, 4):
            await scene.ask(f"b{number}")
        assert await scene.end_all() == "a1 a2 a3 a4 b1 a5 b2 a6 b3"

    async def test_nothing_is_held_against_anyone_when_the_backend_stood_idle(self) -> None:
        scene = Scene()
        await scene.ask("a1", 10_000)
        await scene.end()
        assert scene.queue.num_remembered == 0
        for name in ("b1", "a2", "b2"):
            await scene.ask(name)
        assert await scene.end_all() == "a1 b1 a2 b2"

    async def test_workspaces_that_are_not_ahead_are_forgotten(self) -> None:
        queue = FairQueue(3, 0)
        last = await queue.acquire("z", 1)
        for number in range(500):
            places = await queue.acquire(f"a{number}", 1), await queue.acquire("b", 5)
            for place in places:
                place.release()
        assert queue.num_remembered < 150
        last.release()
        assert queue.num_remembered == 0

    async def test_one_that_is_ahead_is_not_forgotten_among_many(self) -> None:
        queue, order = FairQueue(2, 10), []
        places = [await queue.acquire("z", 1)]
        for name in ("a", *(f"n{number}" for number in range(200))):
            place = await queue.acquire(name, 3)
            place.release()
        places.append(await queue.acquire("y", 1))

        async def run(name: str) -> None:
            places.append(await queue.acquire(name, 1))
            order.append(name)

        tasks = [asyncio.create_task(run(name)) for name in ("a", "b")]
        await settle()
        while places:
            places.pop(0).release()
            await settle()
        assert order == ["b", "a"]
        assert all(task.done() for task in tasks)


class TestPriority:
    async def test_requests_with_priority_go_first(self) -> None:
        scene = Scene()
        for name in ("a1", "a2", "b1"):
            await scene.ask(name)
        await scene.ask("c1", has_priority=True)
        await scene.ask("c2", has_priority=True)
        assert await scene.end_all() == "a1 c1 c2 b1 a2"

    async def test_a_standard_request_goes_after_a_run_of_priority(self) -> None:
        scene = Scene()
        await scene.ask("p0", has_priority=True)
        for name in ("s1", "s2"):
            await scene.ask(name)
        for number in range(1, 11):
            await scene.ask(f"p{number}", has_priority=True)
        assert PRIORITY_RUN == 4
        assert await scene.end_all() == "p0 p1 p2 p3 p4 s1 p5 p6 p7 p8 s2 p9 p10"

    async def test_a_run_counts_from_when_a_standard_request_waits(self) -> None:
        scene = Scene()
        for number in range(10):
            await scene.ask(f"p{number}", has_priority=True)
        for _ in range(4):
            await scene.end()
        await scene.ask("s1")
        assert await scene.end_all() == "p0 p1 p2 p3 p4 p5 p6 p7 p8 s1 p9"

    async def test_workspaces_take_turns_within_priority(self) -> None:
        scene = Scene()
        for name in ("a1", "a2", "a3", "b1"):
            await scene.ask(name, has_priority=True)
        assert await scene.end_all() == "a1 b1 a2 a3"


class TestFull:
    async def test_no_more_wait_than_may(self) -> None:
        scene = Scene(max_waiting=2)
        for name in ("a1", "a2", "a3", "a4"):
            await scene.ask(name)
        assert scene.refused == ["a4"]
        assert await scene.end_all() == "a1 a2 a3"

    async def test_nobody_waits_where_none_may(self) -> None:
        scene = Scene(max_waiting=0)
        await scene.ask("a1")
        await scene.ask("b1")
        assert scene.refused == ["b1"]

    async def test_the_newest_of_the_workspace_with_most_waiting_yields_to_one_with_less(self) -> None:
        scene = Scene(max_waiting=4)
        for name in ("a0", "a1", "a2", "a3", "b1", "c1"):
            await scene.ask(name)
        assert scene.refused == ["a3"]
        assert await scene.end_all() == "a0 b1 c1 a1 a2"

    async def test_equal_shares_are_left_as_they_are(self) -> None:
        scene = Scene(max_waiting=3)
        for name in ("a0", "a1", "a2", "b1", "b2"):
            await scene.ask(name)
        assert scene.refused == ["b2"]

    async def test_what_waits_with_priority_counts_too(self) -> None:
        scene = Scene(max_waiting=3)
        await scene.ask("a0")
        for name in ("a1", "a2", "a3"):
            await scene.ask(name, has_priority=True)
        await scene.ask("b1")
        assert scene.refused == ["a3"]
        assert await scene.end_all() == "a0 a1 a2 b1"

    async def test_of_equal_workspaces_the_one_that_came_last_yields(self) -> None:
        scene = Scene(max_waiting=4)
        for name in ("x1", "a1", "b1", "b2", "a2", "c1"):
            await scene.ask(name)
        assert scene.refused == ["a2"]

    async def test_one_that_all_waited_for_lets_them_go_when_it_is_refused(self) -> None:
        scene = Scene(capacity=2, max_waiting=2)
        for name in ("x1", "x2", "a1"):
            await scene.ask(name)
        await scene.ask("a2", num_places=2, has_priority=True)
        await scene.end()
        assert scene.order == ["x1", "x2"]
        await scene.ask("b1")
        assert scene.refused == ["a2"]
        assert scene.order == ["x1", "x2", "a1"]


class TestCancelling:
    async def test_whoever_leaves_the_queue_takes_no_turn(self) -> None:
        scene = Scene()
        for name in ("a1", "a2", "a3", "a4", "b1", "b2"):
            await scene.ask(name)
        scene.tasks["a2"].cancel()
        scene.tasks["a3"].cancel()
        await settle()
        assert scene.queue.num_waiting == 3
        # a4 has a2's turn: nothing is held against its workspace for those that left.
        assert await scene.end_all() == "a1 b1 a4 b2"

    async def test_order_is_kept_among_many_when_some_leave(self) -> None:
        scene = Scene(capacity=2)
        await scene.ask("!")  # so that the backend is never idle
        costs = {chr(0x4E00 + number): number * 7 % 31 + 1 for number in range(30)}
        for name, cost in costs.items():
            await scene.ask(name, cost)
            scene.running.pop().release()
        await scene.ask("?")
        scene.order.clear()
        for name in costs:
            await scene.ask(name)
        left = list(costs)[::3]
        for name in left:
            scene.tasks[name].cancel()
        await settle()
        expected = sorted(costs.keys() - set(left), key=lambda name: costs[name])
        assert await scene.end_all() == " ".join(expected)

    async def test_others_go_that_waited_for_the_one_that_left(self) -> None:
        scene = Scene(capacity=2)
        await scene.ask("a1")
        await scene.ask("b1", num_places=2)
        await scene.ask("c1")
        scene.tasks["b1"].cancel()
        await settle()
        assert scene.order == ["a1", "c1"]

    async def test_a_place_given_to_a_caller_that_is_cancelled_at_that_moment_comes_back(self) -> None:
        scene = Scene()
        for name in ("a1", "b1", "c1"):
            await scene.ask(name)
        scene.running.pop().release()
        scene.tasks["b1"].cancel()
        await settle()
        assert scene.order == ["a1", "c1"]
        assert scene.queue.num_running == 1

    async def test_no_place_is_given_to_a_caller_that_was_cancelled_a_moment_ago(self) -> None:
        scene = Scene()
        for name in ("a1", "b1", "c1"):
            await scene.ask(name)
        scene.tasks["b1"].cancel()
        scene.running.pop().release()
        await settle()
        assert scene.order == ["a1", "c1"]
        assert scene.queue.num_waiting == 0

    async def test_one_refused_and_cancelled_at_the_same_moment_leaves_nothing(self) -> None:
        scene = Scene(max_waiting=2)
        for name in ("a1", "a2", "a3"):
            await scene.ask(name)
        newcomer = asyncio.create_task(scene.queue.acquire("b", 1))
        await asyncio.sleep(0)  # a3 was refused, and has not run since
        scene.tasks["a3"].cancel()
        await settle()
        assert scene.refused == []
        assert scene.tasks["a3"].cancelled()
        assert scene.queue.num_waiting == 2
        await scene.end()
        (await newcomer).release()
        assert scene.order == ["a1"]

    async def test_one_cancelled_a_moment_ago_makes_room(self) -> None:
        scene = Scene(max_waiting=2)
        for name in ("a1", "a2", "a3"):
            await scene.ask(name)
        newcomer = asyncio.create_task(scene.queue.acquire("b", 1))
        scene.tasks["a3"].cancel()  # b asks before a3's task has run
        await settle()
        assert (scene.queue.num_waiting, newcomer.done(), scene.refused) == (2, False, [])
        await scene.end()
        (await newcomer).release()
        await settle()
        assert await scene.end_all() == "a1 a2"
