"""Options that name servers, and servers that are started and stopped."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest
from benchmarks.servers import ServerSpec, parse_servers, running

ANSWERS_AFTER_LOADING = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_POST(self):
        Handler.asked += 1
        self.send_response(503 if Handler.asked == 1 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
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
        assert started.start_s > 0.1  # it was asked again after its 503
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
