"""mezzo servers before an upstream, and what clients get of them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.server.live import (
    KEY,
    LiveServer,
    chat,
    events_of,
    live_server,
    wait_until,
)

from mezzo.backends.upstream.backend import UpstreamBackend, make_upstream_backend
from mezzo.settings import Settings
from mezzo.store.tables import usage_records
from mezzo.weights.upstream import UpstreamModel

ALL = frozenset({"completion_chat", "completion_fim", "function_calling", "vision", "reasoning"})
UPSTREAM_KEY = "upstream-key-0123456789"
QUESTION = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


@contextmanager
def front_of(
    base_url: str, *, model: str = "there", api_key: str = UPSTREAM_KEY, **settings: Any
) -> Iterator[LiveServer]:
    """Serve an upstream's model."""
    chosen = Settings(upstream_api_key=api_key, **settings)
    backend = make_upstream_backend(UpstreamModel(base_url, model), chosen, max_context_length=131072)
    with live_server(backend, **settings) as server:
        yield server


def stream_of(server: LiveServer, **fields: Any) -> list[dict[str, Any]]:
    """Return the chunks of a streamed answer, which ends with [DONE]."""
    response = server.post(chat(stream=True, **fields))
    assert response.status_code == 200, response.text
    *chunks, done = events_of(response.text)
    assert done == "[DONE]"
    return [json.loads(one) for one in chunks]


def text_of(chunks: list[dict[str, Any]], index: int = 0) -> str:
    own = [one["choices"][0] for one in chunks if one["choices"][0]["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in own)


def answer_of(server: LiveServer, **fields: Any) -> dict[str, Any]:
    response = server.post(chat(**fields))
    assert response.status_code == 200, response.text
    return response.json()


def send(server: LiveServer, body: dict[str, Any]) -> socket.socket:
    """Send a request and return its connection, unread."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Length: {len(data)}\r\n\r\n".encode()
        + data
    )
    return connection


def name_of(server: LiveServer) -> str:
    assert isinstance(server.backend, UpstreamBackend)
    return server.backend.info.name


def entry_of(server: LiveServer, request_id: str) -> Any:
    """Return a request's usage record, which is written a moment after a client left."""

    def found() -> list[Any]:
        return [row for row in server.rows(usage_records) if row.id == request_id]

    wait_until(found)
    (entry,) = found()
    return entry
