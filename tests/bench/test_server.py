"""What is found out about a server before it is measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from mezzo.bench.client import Target
from mezzo.bench.server import NotMeasurable, find_dialect, find_model, warm_up
from mezzo.bench.workloads.streams import Streams
from tests.bench.events import DONE, event, usage
from tests.bench.scripted_server import Script, ScriptedServer


def target(server: ScriptedServer) -> Target:
    return Target("scripted", server.url, "nano")


async def test_a_server_that_counts_unasked_is_asked_plainly(scripted: ScriptedServer) -> None:
    scripted.script = [event("a", "stop", **usage(5, 1)), DONE]
    found = await find_dialect(target(scripted))
    assert found.target.dialect == "mistral"
    assert found.sample.text == "a"
    assert "stream_options" not in scripted.bodies[0]


async def test_a_server_that_counts_when_asked_is_asked(scripted: ScriptedServer) -> None:
    only_usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'

    def respond(body: dict[str, Any]) -> Script:
        asked = body.get("stream_options") == {"include_usage": True}
        return [event("a", "stop"), *([only_usage] if asked else []), DONE]

    scripted.respond = respond
    assert (await find_dialect(target(scripted))).target.dialect == "openai"


async def test_a_server_that_never_counts_is_not_measured(scripted: ScriptedServer) -> None:
    scripted.script = [event("a", "stop"), DONE]
    with pytest.raises(NotMeasurable, match=r"reports no token usage.*mistral or openai"):
        await find_dialect(target(scripted))
    assert [("stream_options" in body) for body in scripted.bodies] == [False, True]


async def test_a_server_that_fails_is_not_measured(scripted: ScriptedServer) -> None:
    scripted.status, scripted.script = b"401 Unauthorized", [b"who are you"]
    with pytest.raises(NotMeasurable, match="scripted does not answer: HTTP 401: who are you"):
        await find_dialect(target(scripted))


async def test_a_server_that_fails_its_warm_up_is_not_measured(scripted: ScriptedServer) -> None:
    scripted.status, scripted.script = b"503 Service Unavailable", [b"full"]
    with pytest.raises(NotMeasurable, match="failed streams, 1 while warming up: HTTP 503: full"):
        await warm_up(target(scripted), Streams(), seed=1, first=0)


class TestModels:
    @pytest.fixture
    def server(self) -> Iterator[ThreadingHTTPServer]:
        class Handler(BaseHTTPRequestHandler):
            names: tuple[str, ...] = ()

            def do_GET(self) -> None:
                body = json.dumps({"object": "list", "data": [{"id": name} for name in self.names]}).encode()
                self.send_response(200 if self.names else 404)
                self.end_headers()
                self.wfile.write(body if self.names else b"no such page")

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield http
        http.shutdown()
        thread.join()
        http.server_close()

    @pytest.mark.parametrize(
        ("names", "found"),
        [(("only",), "only"), (("a", "wanted", "b"), "wanted"), (("same", "same"), "same")],
    )
    def test_the_preferred_or_the_only_one(
        self, server: ThreadingHTTPServer, names: tuple[str, ...], found: str
    ) -> None:
        server.RequestHandlerClass.names = names  # type: ignore[attr-defined]
        assert find_model(f"http://127.0.0.1:{server.server_port}", None, "wanted") == found

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (("a", "b"), "2 models; name one with --model: a, b"),
            ((), r"does not list its models \(HTTP 404\)"),
        ],
    )
    def test_otherwise_it_has_to_be_named(
        self, server: ThreadingHTTPServer, names: tuple[str, ...], message: str
    ) -> None:
        server.RequestHandlerClass.names = names  # type: ignore[attr-defined]
        with pytest.raises(NotMeasurable, match=message):
            find_model(f"http://127.0.0.1:{server.server_port}", None, "wanted")

    def test_a_server_that_is_not_there(self, unused_tcp_port: int) -> None:
        with pytest.raises(NotMeasurable, match="nothing answers at"):
            find_model(f"http://127.0.0.1:{unused_tcp_port}", None, "wanted")
