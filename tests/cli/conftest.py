"""Running the command as people do, and a server to talk to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mezzo.cli.main import main
from tests.cli.sse_server import SseServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return this process's environment without settings, a home of its own, and no colours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEZZO_")}
    return environment | {
        "MEZZO_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "TERM": "xterm",
    }


@pytest.fixture
def mezzo(environment: dict[str, str], tmp_path: Path) -> Run:
    """Return a function that runs `mezzo ARGS` in an empty folder and returns what came out."""

    def run(*args: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mezzo", *args],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=environment | variables,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that does as `mezzo ARGS` does, without the second that a process takes to start."""

    def run(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        for name in list(os.environ):
            if name.startswith("MEZZO_"):
                monkeypatch.delenv(name)
        for name, value in {"MEZZO_HOME": str(tmp_path / "home"), "COLUMNS": "100", **variables}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["mezzo", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        return subprocess.CompletedProcess(args, int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def server() -> Iterator[SseServer]:
    """Return a running server on a free loopback port that speaks the contract's stream."""
    with SseServer() as running:
        yield running
