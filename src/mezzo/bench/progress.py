"""One line that tells how far a run is, drawn over itself twice a second. It costs next to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable
from typing import TextIO

from mezzo.bench.run import Result, Run

EVERY_S = 0.5


async def with_progress(run: Run, *, warm: bool, stream: TextIO, on_result: Callable[[Result], None]) -> None:
    """Do the run and show how far it is. Raises: mezzo.bench.server.NotMeasurable."""
    showing = asyncio.create_task(_show(run, stream))
    try:
        await run.run(warm=warm, on_result=on_result)
    finally:
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing


async def _show(run: Run, stream: TextIO) -> None:
    """Draw until cancelled, and wipe the line then. Terminals only: elsewhere nothing is drawn."""
    if not stream.isatty():
        return
    try:
        while True:
            columns = shutil.get_terminal_size().columns
            stream.write(f"\r\x1b[K{progress_line(run)[: columns - 1]}")
            stream.flush()
            await asyncio.sleep(EVERY_S)
    finally:
        stream.write("\r\x1b[K")
        stream.flush()


def progress_line(run: Run) -> str:
    if not run.loads.all:
        return run.phase
    load = run.loads.all[-1]
    num_events = sum(len(sample.event_times_s) for sample in load.sent)
    elapsed_s = time.perf_counter() - load.started_at
    failed = f", {load.num_failed} failed" if load.num_failed else ""
    done = f"{load.name}: {len(load.samples)} of {load.planned} requests{failed}"
    return f"{done}, {num_events} events, {elapsed_s:.0f} s"
