"""Clients that leave in the middle: their places and their cache are free at once, and nothing else happens."""

from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from tests.sdk.serving import KEY, Serving, chat, wait_until


def send(server: Serving, body: object) -> socket.socket:
    """Send a request and return its connection, unread."""
    address = urlsplit(server.url)
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    connection.sendall(head.encode() + content)
    return connection


def num_aborted(server: Serving) -> float:
    text = server.client.get("/metrics").text
    lines = [line for line in text.splitlines() if 'outcome="aborted"' in line and "_created" not in line]
    return sum(float(line.split()[-1]) for line in lines)


@pytest.mark.parametrize("num_choices", [1, 4])
def test_stream_that_is_left_frees_its_place(server: Serving, num_choices: int) -> None:
    aborted = num_aborted(server)
    body = chat(max_tokens=4000, stream=True, n=num_choices)
    with (
        httpx.Client(headers=server.client.headers, timeout=60, trust_env=False) as client,
        client.stream("POST", server.url + "/v1/chat/completions", json=body) as response,
    ):
        lines = response.iter_lines()
        for _ in range(12):
            next(lines)
        assert server.metric("mezzo_sequences_running") == num_choices
        assert server.metric("mezzo_kv_cache_used_blocks") >= 1
    wait_until(server.is_idle)
    assert num_aborted(server) == aborted + 1
    assert server.post(chat()).status_code == 200


@pytest.mark.parametrize(
    "content", ["Tell me about rivers.", "river " * 7000], ids=["while decoding", "while its prompt is read"]
)
def test_answer_nobody_waits_for_is_not_finished(server: Serving, content: str) -> None:
    aborted = num_aborted(server)
    with send(server, chat(content, max_tokens=1000)):
        wait_until(lambda: server.metric("mezzo_sequences_running") == 1, 30)
        time.sleep(0.3)
    # The chunk at hand is finished first: seconds, on one thread of a busy machine; the prompt has 14 of them.
    wait_until(server.is_idle, 10)
    assert num_aborted(server) == aborted + 1
    assert server.post(chat()).status_code == 200


def test_crowd_that_leaves_at_once(server: Serving) -> None:
    connections = [
        send(server, chat(f"Tell me {i} things.", max_tokens=4000, stream=True)) for i in range(40)
    ]
    wait_until(lambda: server.metric("mezzo_sequences_running") == 32, 30)
    # Some wait in the engine, to be at hand when a place gets free, and the others for their turn.
    assert server.metric("mezzo_sequences_waiting") + server.metric("mezzo_requests_waiting") == 8
    for connection in connections:
        connection.close()
    wait_until(server.is_idle, 6)
    assert server.post(chat()).status_code == 200
