"""From start to stop: readiness that is true, and a shutdown that finishes what runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mezzo.backends.base import BackendUnavailable
from mezzo.backends.router import Router
from mezzo.server.run import listen, url_of
from tests.fakes import FakeBackend, Script
from tests.server.live import KEY, LiveServer, assert_error, chat, events_of, live_server, wait_until

REPOSITORY = Path(__file__).parents[2]


class TestShutdown:
    def test_running_stream_finishes_within_the_grace(self) -> None:
        with live_server(FakeBackend(Script(text="x" * 20, step_s=0.02))) as live:
            with live.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
                live.request_stop()
                response.read()
            events = events_of(response.text)
        assert json.loads(events[-2])["choices"][0]["finish_reason"] == "stop"
        assert json.loads(events[-2])["usage"]["completion_tokens"] == 20

    def test_stream_that_outlasts_the_grace_is_told_so(self) -> None:
        with live_server(FakeBackend(Script(text="x" * 10_000, step_s=0.02)), shutdown_grace_s=0.3) as live:
            with live.client.stream("POST", "/v1/chat/completions", json=chat(stream=True, n=2)) as response:
                live.request_stop()
                started = time.monotonic()
                response.read()
            assert 0.2 < time.monotonic() - started < 2
            events = events_of(response.text)
            assert events[-1] == "[DONE]"
            last = [json.loads(event) for event in events[-3:-1]]
            assert [chunk["choices"][0]["finish_reason"] for chunk in last] == ["error", "error"]
            assert last[1]["usage"]["completion_tokens"] > 0
            assert live.backend.generations[0].closed_early.is_set()

    def test_answer_that_outlasts_the_grace_is_503(self) -> None:
        with live_server(FakeBackend(Script(text="x" * 10_000, step_s=0.02)), shutdown_grace_s=0.2) as live:
            answers: list[httpx.Response] = []
            thread = threading.Thread(target=lambda: answers.append(live.post(chat())))
            thread.start()
            wait_until(lambda: live.backend.generations)
            live.request_stop()
            thread.join(5)
            assert_error(answers[0], 503, code="3800")

    def test_no_new_connection_is_accepted(self) -> None:
        with live_server(FakeBackend(Script(text="x" * 50, step_s=0.02))) as live:
            with live.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
                live.request_stop()
                wait_until(lambda: live.gateway.is_draining)
                time.sleep(0.1)
                with pytest.raises(httpx.ConnectError):
                    httpx.get(live.url + "/healthz", trust_env=False)
                response.read()
            assert events_of(response.text)[-1] == "[DONE]"

    def test_client_that_does_not_read_cannot_hold_the_server(self) -> None:
        live = LiveServer(FakeBackend(Script(text="x" * 2_000_000, step_tokens=2000)), shutdown_grace_s=0)
        live.start()
        body = json.dumps(chat(stream=True, max_tokens=3000)).encode()
        with socket.create_connection(("127.0.0.1", live.port)) as connection:
            connection.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            wait_until(lambda: live.backend.generations)
            live.stop()


def test_draining_server_answers_503_and_is_not_ready(server: LiveServer) -> None:
    with live_server() as live:
        live.gateway.drain()
        assert_error(live.post(chat()), 503, code="3800", message="Service unavailable.")
        ready = live.client.get("/readyz")
        assert (ready.status_code, ready.json()["reason"]) == (503, "the server is shutting down")
        assert live.client.get("/healthz").status_code == 200


class TestListen:
    def test_port_0_is_a_free_port(self) -> None:
        with listen("127.0.0.1", 0) as one, listen("127.0.0.1", 0) as two:
            assert url_of(one) != url_of(two)

    def test_port_in_use_is_an_error(self) -> None:
        with listen("127.0.0.1", 0) as taken:
            taken.listen()
            with pytest.raises(OSError, match="in use"):
                listen("127.0.0.1", taken.getsockname()[1])

    @pytest.mark.parametrize(
        ("host", "url"), [("0.0.0.0", "http://127.0.0.1:"), ("127.0.0.1", "http://127.0.0.1:")]
    )
    def test_url_can_be_reached_from_this_machine(self, host: str, url: str) -> None:
        with listen(host, 0) as listener:
            assert url_of(listener).startswith(url)


class TestRouter:
    async def test_backend_of_two_models_is_started_and_stopped_once(self) -> None:
        shared, other = FakeBackend(), FakeBackend(name="other")
        router = Router({"a": shared, "b": shared, "c": other})
        assert not router.is_ready
        await router.start()
        assert router.is_ready
        await router.stop()
        assert (shared.num_starts, shared.num_stops, other.num_stops) == (1, 1, 1)
        assert router.backend_for("b") is shared
        with pytest.raises(KeyError):
            router.backend_for("d")

    async def test_first_failure_is_told_at_once(self) -> None:
        slow = FakeBackend(start_s=30)
        router = Router({"a": slow, "b": FakeBackend(start_failure=BackendUnavailable("no weights"))})
        with pytest.raises(BackendUnavailable, match="no weights"):
            await router.start()
        await router.stop()
        assert slow.num_stops == 1


# --- a process of its own ---


class ServeProcess:
    def __init__(self, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.serve_fake", json.dumps(options)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": "src"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.events: list[dict[str, Any]] = []

    def wait_for(self, event: str) -> dict[str, Any]:
        while not any(told["event"] == event for told in self.events):
            line = self.process.stdout.readline()
            assert line, f"ended without {event}: {self.events}"
            self.events.append(json.loads(line))
        return next(told for told in self.events if told["event"] == event)


@contextmanager
def serving(**options: Any) -> Iterator[ServeProcess]:
    serve = ServeProcess(**options)
    try:
        yield serve
    finally:
        serve.process.kill()
        serve.process.wait()
        serve.process.stdout.close()


def answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url + "/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
class TestProcess:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signal_lets_streams_finish_and_stops_backends(self, number: signal.Signals) -> None:
        with serving(script={"text": "x" * 30, "step_s": 0.02}) as serve:
            url = serve.wait_for("ready")["url"]
            headers = {"authorization": f"Bearer {KEY}"}
            with (
                httpx.Client(trust_env=False, headers=headers) as client,
                client.stream("POST", url + "/v1/chat/completions", json=chat(stream=True)) as response,
            ):
                serve.process.send_signal(number)
                response.read()
            assert json.loads(events_of(response.text)[-2])["choices"][0]["finish_reason"] == "stop"
            stopped = serve.wait_for("stopped")
            assert stopped["starts"] == stopped["stops"] == [1, 1]
            assert serve.process.wait(5) == 0

    def test_second_interrupt_ends_at_once(self) -> None:
        with serving(script={"text": "x" * 100_000, "step_s": 0.02}) as serve:
            url = serve.wait_for("ready")["url"]
            headers = {"authorization": f"Bearer {KEY}"}
            with (
                httpx.Client(trust_env=False, headers=headers) as client,
                client.stream("POST", url + "/v1/chat/completions", json=chat(stream=True)) as response,
            ):
                lines = response.iter_lines()
                next(lines)
                serve.process.send_signal(signal.SIGINT)
                time.sleep(0.5)
                assert serve.process.poll() is None
                serve.process.send_signal(signal.SIGINT)
                assert serve.wait_for("stopped")["stops"] == [1, 1]
                assert serve.process.wait(3) == 0

    def test_is_alive_before_it_is_ready(self) -> None:
        with listen("127.0.0.1", 0) as free:
            port = free.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with serving(start_s=4, port=port) as serve, httpx.Client(trust_env=False) as client:
            wait_until(lambda: answers(client, url), timeout_s=10)
            response = client.get(url + "/readyz")
            assert (response.status_code, response.json()["reason"]) == (503, "not ready: fake, fake")
            assert serve.wait_for("ready")["url"] == url
            assert client.get(url + "/readyz").status_code == 200

    def test_backends_are_made_before_the_web_framework_is_imported(self) -> None:
        with serving() as serve:
            serve.wait_for("ready")
            made = [told for told in serve.events if told["event"] == "made"]
            assert made == [{"event": "made", "web_framework": False}] * 2  # two models share a folder

    def test_weights_that_cannot_be_loaded_end_it_with_the_reason(self) -> None:
        with serving(start_failure="config.json is missing") as serve:
            assert serve.wait_for("unavailable")["reason"] == "config.json is missing"
            assert serve.wait_for("stopped")["stops"] == [1, 1]
            assert not any(told["event"] == "ready" for told in serve.events)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signal_while_loading_ends_it(self, number: signal.Signals) -> None:
        with serving(start_s=60) as serve:
            serve.wait_for("made")
            serve.wait_for("made")
            time.sleep(0.7)
            serve.process.send_signal(number)
            assert serve.wait_for("stopped")["stops"] == [1, 1]
            assert serve.process.wait(5) == 0
