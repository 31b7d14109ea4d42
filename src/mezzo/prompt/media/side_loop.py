"""An event loop in a thread of its own, for work that strangers can make slow."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class SideLoop:
    """Runs coroutines away from the caller's loop, which they cannot hold up: they only share the interpreter with it.

    The thread starts with the first coroutine, and ends when nobody holds this object any more.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Await `work` on the other loop. Cancelling this cancels the work."""
        if self._loop is None:
            self._loop = _start(self._name)
            end = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
            end.atexit = False  # the thread goes with the process
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


def _start(name: str) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    # A daemon: nothing that is fetched is worth waiting for when the process ends.
    threading.Thread(target=_run, args=(loop,), name=name, daemon=True).start()
    return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel_all())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
