"""Clients that leave: the work stops at once, and what was made of it is counted."""

from __future__ import annotations

import json
import re
import socket
import time

import pytest
from structlog.testing import capture_logs

from tests.fakes import FakeBackend, FakeGeneration, Script
from tests.server.live import (
    KEY,
    MODEL_ID,
    LiveServer,
    chat,
    events_of,
    live_server,
    wait_for_record,
    wait_until,
)


def request_bytes(body: dict, *, headers: str = "") -> bytes:
    data = json.dumps(body).encode()
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Length: {len(data)}\r\n{headers}\r\n"
    ).encode() + data


def connect(server: LiveServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def only_generation(server: LiveServer) -> FakeGeneration:
    wait_until(lambda: server.backend.generations)
    (generation,) = server.backend.generations
    return generation


@pytest.mark.parametrize("stream", [True, False])
def test_hanging_up_stops_the_work_and_counts_it(server: LiveServer, stream: bool) -> None:
    server.backend.script = Script(text="x" * 1000, step_s=0.01)
    counted_before = server.metric("mezzo_tokens_total", model=MODEL_ID, kind="completion")
    aborted_before = server.metric("mezzo_chat_outcomes_total", model=MODEL_ID, outcome="aborted")
    with capture_logs() as logs:
        connection = connect(server)
        connection.sendall(request_bytes(chat(stream=stream)))
        generation = only_generation(server)
        wait_until(lambda: generation.num_tokens >= 5)
        if stream:
            assert b"text/event-stream" in connection.recv(4096)
        connection.close()
        assert generation.closed_early.wait(1)
        record = wait_for_record(logs, outcome="aborted")
    assert record["status"] == (200 if stream else 499)
    assert record["completion_tokens"] == generation.num_tokens
    assert record["prompt_tokens"] == 2
    counted = server.metric("mezzo_tokens_total", model=MODEL_ID, kind="completion") - counted_before
    assert counted == generation.num_tokens
    assert server.metric("mezzo_chat_outcomes_total", model=MODEL_ID, outcome="aborted") == aborted_before + 1
    assert server.gateway.num_running == 0


def test_hanging_up_before_the_first_token_stops_the_work(server: LiveServer) -> None:
    server.backend.script = Script(step_s=30)
    connection = connect(server)
    connection.sendall(request_bytes(chat(stream=True)))
    generation = only_generation(server)
    connection.close()
    assert generation.closed_early.wait(1)
    wait_until(lambda: server.gateway.num_running == 0)


def test_hanging_up_while_the_backend_is_asked_stops_asking(server: LiveServer) -> None:
    server.backend.script = Script(submit_s=30)
    num_submits, num_cancelled = server.backend.num_submits, server.backend.num_cancelled_submits
    connection = connect(server)
    connection.sendall(request_bytes(chat()))
    wait_until(lambda: server.backend.num_submits > num_submits)
    connection.close()
    wait_until(lambda: server.backend.num_cancelled_submits == num_cancelled + 1)
    assert server.backend.generations == []


def test_hanging_up_after_the_last_chunk_is_a_finished_request(server: LiveServer) -> None:
    server.backend.script = Script(text="ab", step_s=0.02)
    with capture_logs() as logs:
        connection = connect(server)
        connection.sendall(request_bytes(chat(stream=True)))
        received = b""
        while b'"finish_reason":"stop"' not in received:
            received += connection.recv(4096)
        connection.close()
        record = wait_for_record(logs, request_id=re.search(rb'"id":"(\w+)"', received)[1].decode())
    assert record["outcome"] == "finished"


def test_every_pipelined_request_learns_of_the_hang_up(server: LiveServer) -> None:
    server.backend.script = Script(text="x" * 1000, step_s=0.01)
    connection = connect(server)
    connection.sendall(request_bytes(chat(stream=True)) + request_bytes(chat()))
    generation = only_generation(server)  # the second waits for the first
    wait_until(lambda: generation.num_tokens >= 3)
    connection.close()
    assert generation.closed_early.wait(1)
    wait_until(lambda: server.gateway.num_running == 0)
    assert len(server.backend.generations) == 1


def test_pipelined_requests_are_answered_in_order(server: LiveServer) -> None:
    with connect(server) as connection:
        connection.sendall(
            request_bytes(chat("one"))
            + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
            + request_bytes(chat("three"), headers="Connection: close\r\n")
        )
        received = b""
        while part := connection.recv(65536):
            received += part
    statuses = received.count(b"HTTP/1.1 200 OK")
    assert statuses == 3
    order = [
        received.index(mark) for mark in (b'"prompt_tokens":3,', b'"status":"ok"', b'"prompt_tokens":5,')
    ]
    assert order == sorted(order)


def test_connection_is_kept_for_the_next_request(server: LiveServer) -> None:
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(request_bytes(chat(stream=True)))
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += connection.recv(65536)
            assert received.startswith(b"HTTP/1.1 200 OK")
            assert b"data: [DONE]\n\n" in received


def test_aborted_upload_leaves_nothing_behind(server: LiveServer) -> None:
    with capture_logs() as logs:
        connection = connect(server)
        connection.sendall(request_bytes(chat())[:-5])
        time.sleep(0.05)
        connection.close()
        wait_for_record(logs, status=499, outcome="aborted")
    assert server.metric("mezzo_requests_in_flight") == 1  # the scrape itself
    assert server.backend.generations == []


def test_slow_reader_gets_everything_in_fewer_pieces(server: LiveServer) -> None:
    text = "0123456789" * 300
    server.backend.script = Script(text=text, step_tokens=10)
    with server.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
        time.sleep(0.3)
        response.read()
    events = events_of(response.text)[:-1]
    assert "".join(json.loads(event)["choices"][0]["delta"]["content"] for event in events) == text


def test_hanging_up_while_a_file_is_fetched_stops_the_fetch() -> None:
    """The web server that is asked accepts and says nothing; the fetch hangs up on it when the client does."""
    backend = FakeBackend(capabilities=frozenset({"completion_chat", "vision"}))
    with socket.create_server(("127.0.0.1", 0)) as web:
        port = web.getsockname()[1]
        image = {"type": "image_url", "image_url": f"http://127.0.0.1:{port}/slow.png"}
        with live_server(backend, fetch_allowed_hosts=(f"127.0.0.1:{port}",)) as server:
            connection = connect(server)
            connection.sendall(request_bytes(chat([image])))
            web.settimeout(10)
            fetching, _ = web.accept()
            with fetching:
                fetching.settimeout(10)
                assert fetching.recv(4096).startswith(b"GET /slow.png HTTP/1.1\r\n")
                connection.close()
                assert fetching.recv(4096) == b""
            assert backend.num_submits == 0
            wait_until(lambda: server.metric("mezzo_requests_in_flight") <= 1)  # the question itself
