"""Processes that train one model together, each on pictures of its own; every few steps they average what they have.

That is local SGD (arXiv 1805.09767). A step over few tokens keeps one core busy and no second one, so two processes on
two cores take twice the steps of one process with two threads, less what averaging costs.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
from torch import Tensor

from mezzo.train.data import fonts
from mezzo.train.data.fonts import Families
from mezzo.train.data.source import end_with_parent
from mezzo.train.errors import CannotTrain

_MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's
_SHARED_NUMBERS = (
    1 << 20
)  # of each process at a time: containers often have no more than 64 MB of shared memory
_EVERY = 4  # steps


@dataclass(frozen=True)
class Member:
    """What one process of a team knows.

    rank     0 for the process that logs, examines and saves
    size     processes in the team
    board    (size, numbers) float32 in shared memory, on which each writes its own row
    barrier  where all wait for each other
    """

    rank: int = 0
    size: int = 1
    board: Tensor | None = None
    barrier: Barrier | None = None

    def turn(self, step: int) -> int:
        """Return the number of what this process takes in a step: no two of a team take the same."""
        return step * self.size + self.rank

    def averages_after(self, step: int) -> bool:
        """Return whether this many steps are followed by an average in any case."""
        return step % _EVERY == 0

    @torch.no_grad()
    def average(self, optimizer: torch.optim.Optimizer) -> None:
        """Set parameters and moments of all processes to their means: after it all hold the same bits."""
        if self.board is None:
            return
        for tensor in _trained(optimizer):
            flat = tensor.view(-1)
            for part in torch.split(flat, self.board.shape[1]):
                self.board[self.rank, : len(part)] = part
                self.meet()
                part.copy_(self.board[:, : len(part)].mean(0))
                self.meet()

    def meet(self) -> None:
        """Wait until all processes are here. Raises: threading.BrokenBarrierError where one of them has ended."""
        if self.barrier is not None:
            self.barrier.wait()


ALONE = Member()


@contextmanager
def team(size: int, work: Callable[[Member], Any]) -> Iterator[Member]:
    """Run `work` in `size - 1` processes beside this one, which is rank 0; they are stopped at the end.

    work   a picklable function; it must average as often as this process does

    Raises: CannotTrain where one of the others ended before this process was done.
    """
    if size == 1:
        yield ALONE
        return
    context = multiprocessing.get_context("spawn")
    board = torch.zeros(size, _SHARED_NUMBERS)
    board.share_memory_()  # type: ignore[no-untyped-call]
    barrier = context.Barrier(size)
    threads = max(1, torch.get_num_threads() // size)
    others = [
        context.Process(
            target=_member, args=(work, Member(rank, size, board, barrier), threads, fonts.families())
        )
        for rank in range(1, size)
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for process in others:
        process.start()
    threading.Thread(target=_break_when_one_fails, args=(others, barrier), daemon=True).start()
    try:
        yield Member(0, size, board, barrier)
    except threading.BrokenBarrierError:
        codes = ", ".join(str(process.exitcode) for process in others if process.exitcode)
        raise CannotTrain(
            f"a process that trained beside this one has ended with exit code {codes}"
        ) from None
    finally:
        torch.set_num_threads(before)
        for process in others:
            process.terminate()
        for process in others:
            process.join()


def _trained(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield parameter
            state = optimizer.state.get(parameter, {})
            yield from (state[name] for name in _MOMENTS if name in state)


def _member(work: Callable[[Member], Any], member: Member, threads: int, found: Families) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and one of them tells
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    fonts.remember(found)
    try:
        work(member)
    except threading.BrokenBarrierError:
        return  # another process failed, and rank 0 tells of it


def _break_when_one_fails(others: list[Any], barrier: Barrier) -> None:
    running = {process.sentinel: process for process in others}
    while running:
        for sentinel in wait(list(running)):
            process = running.pop(sentinel)
            process.join()
            if process.exitcode:
                barrier.abort()
