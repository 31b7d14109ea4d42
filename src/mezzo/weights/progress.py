"""How long work on large files is shown: a bar on a terminal, one line per stage elsewhere, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

Advance = Callable[[int], None]


class Progress(Protocol):
    """Where stages of work are reported."""

    def stage(self, name: str, total_bytes: int | None) -> AbstractContextManager[Advance]:
        """Show one stage while the block runs; call what it gives with each number of bytes done.

        total_bytes is None where the amount of work is not known beforehand.
        """

    def note(self, message: str) -> None:
        """Show one sentence, for instance what is being waited for."""


class SilentProgress:
    """Show nothing."""

    @contextmanager
    def stage(self, name: str, total_bytes: int | None) -> Iterator[Advance]:
        yield lambda num_bytes: None

    def note(self, message: str) -> None:
        pass


class LineProgress:
    """Write one plain line per stage: for logs, pipes and containers."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextmanager
    def stage(self, name: str, total_bytes: int | None) -> Iterator[Advance]:
        self.note(name if total_bytes is None else f"{name} ({format_size(total_bytes)})")
        yield lambda num_bytes: None

    def note(self, message: str) -> None:
        self._stream.write(message + "\n")
        self._stream.flush()


class BarProgress:
    """Draw a bar per stage on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # noqa: PLC0415 - only where something is drawn

        self._console = Console(file=stream)

    @contextmanager
    def stage(self, name: str, total_bytes: int | None) -> Iterator[Advance]:
        from rich import markup  # noqa: PLC0415 - only where something is drawn
        from rich import progress as bars  # noqa: PLC0415

        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.DownloadColumn(),
            bars.TransferSpeedColumn(),
            bars.TimeRemainingColumn(),
        )
        with bars.Progress(*columns, console=self._console) as drawn:
            task = drawn.add_task(markup.escape(name), total=total_bytes)
            yield lambda num_bytes: drawn.advance(task, num_bytes)

    def note(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False)


def console_progress(stream: TextIO | None = None) -> Progress:
    """Choose for `stream`, stderr if None: bars on a terminal, lines otherwise."""
    stream = sys.stderr if stream is None else stream
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)


def format_size(num_bytes: int) -> str:
    """Write an amount of bytes for people, in decimal units: 538060800 is `538 MB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= factor:
            amount = num_bytes / factor
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{num_bytes} bytes"
