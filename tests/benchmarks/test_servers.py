"""Options that name servers, and servers that are started and stopped."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

import pytest
from benchmarks.servers import ServerSpec, parse_servers, pause, resume, running, starts_s

ANSWERS_AFTER_LOADING = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_POST(self):
        Handler.asked += 1
        self.send_response(503 if Handler.asked == 1 else 200)
        self.end_headers()
        if Handler.asked > 1:
            time.sleep(0.1)
            self.wfile.write(b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\\n\\n')
            self.wfile.write(b"data: [DONE]\\n\\n")
            if "slow" in sys.argv:
                time.sleep(1)
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def spec(port: int, start: str | None) -> ServerSpec:
    return ServerSpec("tiny", f"http://127.0.0.1:{port}", None, "nano", "", start)


def test_options_are_joined_by_name() -> None:
    specs = parse_servers(
        ["a=http://127.0.0.1:1/,k=1", "b=http://127.0.0.1:2"], ["b=m2", "a=m1"], ["a=mezzo 0.1"], ["b=run b"]
    )
    assert specs == [
        ServerSpec("a", "http://127.0.0.1:1", "k=1", "m1", "mezzo 0.1", None),
        ServerSpec("b", "http://127.0.0.1:2", None, "m2", "", "run b"),
    ]


@pytest.mark.parametrize(
    ("servers", "models", "message"),
    [
        (["http://127.0.0.1:1"], [], "--server http://127.0.0.1:1: expected NAME=VALUE"),
        (["a=127.0.0.1:1"], ["a=m"], "expected http://HOST:PORT"),
        (["a=http://h:1", "a=http://h:2"], ["a=m"], "--server a=... is given twice"),
        (["a=http://h:1"], [], "--model a=... is missing"),
        (["a=http://h:1"], ["a=m", "c=m"], "--model c=...: no --server has that name"),
    ],
)
def test_wrong_options_are_named(servers: list[str], models: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        parse_servers(servers, models, [], [])


def test_a_server_is_awaited_until_it_answers_and_is_gone_afterwards(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    script = tmp_path / "server.py"
    script.write_text(ANSWERS_AFTER_LOADING)
    command = shlex.join([sys.executable, str(script), str(unused_tcp_port)])
    with running(spec(unused_tcp_port, command)) as started:
        assert started is not None
        assert started.start_s > 0.1  # it was asked again after its 503, and took its time to the first token
        os.kill(started.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(started.pid, 0)


def test_a_server_that_dies_shows_its_last_words(unused_tcp_port: int) -> None:
    command = shlex.join([sys.executable, "-c", "raise SystemExit('no such weights')"])
    with pytest.raises(RuntimeError, match="tiny did not come up:\nno such weights"):  # noqa: SIM117
        with running(spec(unused_tcp_port, command)):
            pytest.fail("the block must not run")


def test_a_running_server_is_left_alone(unused_tcp_port: int) -> None:
    with running(spec(unused_tcp_port, None)) as started:
        assert started is None


def test_each_start_is_timed_to_the_first_token_and_not_to_the_end(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    script = tmp_path / "server.py"
    script.write_text(ANSWERS_AFTER_LOADING)
    command = shlex.join([sys.executable, str(script), str(unused_tcp_port), "slow"])
    first, second = starts_s(spec(unused_tcp_port, command), 2)
    assert first > 0.1
    assert second > 0.1
    assert min(first, second) < 1


def test_a_paused_server_stands_still_and_can_be_stopped(tmp_path: Path, unused_tcp_port: int) -> None:
    script = tmp_path / "server.py"
    script.write_text(ANSWERS_AFTER_LOADING)
    command = shlex.join([sys.executable, str(script), str(unused_tcp_port)])
    with running(spec(unused_tcp_port, command)) as started:
        assert started is not None
        pause(started.pid)
        assert state(started.pid) == "T"
        resume(started.pid)
        assert state(started.pid) != "T"
        pause(started.pid)
    with pytest.raises(ProcessLookupError):
        os.kill(started.pid, 0)


def state(pid: int) -> str:
    """Return the letter that Linux gives a process: T for one that is stopped."""
    deadline = time.monotonic() + 2
    while True:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if letter == "T" or time.monotonic() > deadline - 1.8:
            return letter
        time.sleep(0.01)
