"""The engine process of `mezzo serve` begins before anything else does, and of other commands not at all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from mezzo.cli import entry
from mezzo.engine import launch

launch_engine = launch.launch_engine

def told():
    launched = launch_engine()
    print("launched", launched.process.pid, "typer" in sys.modules, flush=True)
    return launched

launch.launch_engine = told
sys.argv[0] = "mezzo"
entry.main()
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_it_is_launched_before_the_command_line_is_read_and_ended_if_that_is_wrong() -> None:
    done = run("serve", "--port", "none")
    assert done.returncode == 2
    assert "'--port'" in done.stderr
    word, pid, has_typer = done.stdout.split()
    assert (word, has_typer) == ("launched", "False")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@pytest.mark.parametrize(
    "arguments", [("serve", "--help"), ("serve", "-h"), ("--version",), ("models", "--help")]
)
def test_nothing_is_launched_for_what_serves_nothing(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 0
    assert "launched" not in done.stdout
