"""Work on a loop of its own: it can be slow, and it can be cancelled."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from mezzo.prompt.media.side_loop import SideLoop


def threads_called(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


async def test_work_that_holds_up_its_loop_does_not_hold_up_the_callers() -> None:
    side_loop = SideLoop("slow")
    is_over = threading.Event()

    async def block() -> str:
        is_over.wait(20)
        return "done"

    work = asyncio.ensure_future(side_loop.run(block()))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not work.done()
    is_over.set()
    assert await work == "done"


async def test_errors_come_to_the_caller() -> None:
    async def fail() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await SideLoop("failing").run(fail())


async def test_cancelling_the_caller_cancels_the_work() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    side_loop = SideLoop("cancelled")
    work = asyncio.ensure_future(side_loop.run(wait()))
    assert await asyncio.to_thread(begun.wait, 10)
    work.cancel()
    assert await asyncio.to_thread(ended.wait, 10)


async def test_the_thread_ends_with_its_owner() -> None:
    side_loop = SideLoop("owned")

    async def nothing() -> None:
        pass

    await side_loop.run(nothing())
    (thread,) = threads_called("owned")
    del side_loop
    gc.collect()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
