"""`mezzo serve` from its start to Ctrl-C, with the real nano weights."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from mezzo.weights import CheckpointFolder
from tests.cli.conftest import Run

pytestmark = pytest.mark.slow
Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(environment: dict[str, str], nano_folder: CheckpointFolder, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts `mezzo serve` on a free port, in a process group of its own."""
    running = []

    def spawn() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mezzo", "serve", "--port", "0", "--weights", str(nano_folder.path)]
        server = subprocess.Popen(
            command,
            env=environment | {"MEZZO_THREADS": "1"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(server)
        return server

    yield spawn
    for server in running:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def press_ctrl_c(server: subprocess.Popen[str]) -> int:
    """Send what a terminal sends, to the whole group; return the exit code."""
    os.killpg(server.pid, signal.SIGINT)
    return server.wait(60)


def is_group_empty(server: subprocess.Popen[str]) -> bool:
    try:
        os.killpg(server.pid, 0)
    except ProcessLookupError:
        return True
    return False


def read_banner(server: subprocess.Popen[str]) -> list[str]:
    assert server.stdout is not None
    lines = []
    for line in server.stdout:
        lines.append(line.rstrip("\n"))
        if "Ctrl-C stops the server" in line:
            return lines
    raise AssertionError(f"the server ended early: {lines}")


def test_what_it_prints_works_and_ctrl_c_stops_everything(start: Start, mezzo: Run, tmp_path: Path) -> None:
    server = start()
    banner = read_banner(server)

    (line,) = [line for line in banner if line.startswith("curl ")]
    words = shlex.split(line)
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
    answer = httpx.post(words[1], headers=headers, content=words[words.index("-d") + 1], timeout=120)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]
    key = (tmp_path / "home" / "api-key").read_text().strip()
    assert headers["Authorization"] == f"Bearer {key}"

    port = words[1].split("/")[2].rpartition(":")[2]
    said = mezzo("chat", "Say hello.", "--max-tokens", "5", MEZZO_PORT=port)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.strip()

    assert press_ctrl_c(server) == 0
    assert is_group_empty(server)
    assert server.stderr is not None
    log = server.stderr.read()
    assert "Traceback" not in log
    assert key not in log
    assert "Stopped." in log


def test_ctrl_c_before_it_is_ready_leaves_nothing_and_says_so_with_its_exit_code(start: Start) -> None:
    server = start()
    assert server.stderr is not None
    assert server.stderr.readline().startswith("Starting with ")
    assert press_ctrl_c(server) == 130
    assert is_group_empty(server)
    assert "Traceback" not in server.stderr.read()


def test_weights_that_are_not_supported_are_named(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    result = subprocess.run(
        [sys.executable, "-m", "mezzo", "serve", "--port", "0", "--weights", str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "error: the engine did not start: other: model type 'qwen3' is not supported" in result.stderr
    assert "Traceback" not in result.stderr
