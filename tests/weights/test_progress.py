"""What people see while they wait."""

from __future__ import annotations

import io

import pytest

from mezzo.weights import console_progress
from mezzo.weights.progress import BarProgress, LineProgress, format_size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_pipe_gets_one_plain_line_per_stage() -> None:
    stream = io.StringIO()
    progress = console_progress(stream)
    assert isinstance(progress, LineProgress)
    with progress.stage("Downloading tiny", 93_000_000) as advance:
        advance(1)
    with progress.stage("Looking", None) as advance:
        advance(1)
    progress.note("Waiting.")
    assert stream.getvalue() == "Downloading tiny (93 MB)\nLooking\nWaiting.\n"


def test_terminal_gets_a_bar_that_reaches_the_end() -> None:
    stream = Terminal()
    progress = console_progress(stream)
    assert isinstance(progress, BarProgress)
    with progress.stage("Downloading [tiny]", 4_000_000) as advance:
        advance(1_000_000)
        advance(3_000_000)
    progress.note("Waiting [for] it.")
    assert "Downloading [tiny]" in stream.getvalue()
    assert "4.0/4.0 MB" in stream.getvalue()
    assert "Waiting [for] it." in stream.getvalue()


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (538_090_408, "538 MB"),
        (7_200_000_000, "7.2 GB"),
    ],
)
def test_sizes_are_decimal(num_bytes: int, text: str) -> None:
    assert format_size(num_bytes) == text
