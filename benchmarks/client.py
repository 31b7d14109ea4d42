"""One streamed chat completion, timed: a client that costs little.

The client shares its cores with the server it measures. So it speaks HTTP/1.1 through a C parser on a bare
asyncio protocol, opens one connection per request, and decodes of each event only the fields it needs.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import msgspec

REQUEST_TIMEOUT_S = 300.0


class Target(msgspec.Struct, frozen=True):
    """Where requests go.

    url                  base URL, without `/v1`
    include_usage        send OpenAI's `stream_options`, for servers that count tokens only when asked
    """

    name: str
    url: str
    model: str
    key: str | None = None
    include_usage: bool = False


@dataclass
class Sample:
    """What one request showed to its client. Times are seconds since just before it was sent.

    event_times_s        arrival of each event that carried text
    completion_tokens    as the server counted them, never the number of events
    error                None, or why this request does not count
    """

    event_times_s: list[float] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    e2e_s: float = 0.0
    error: str | None = None

    @property
    def ttft_s(self) -> float:
        """Time to the first text; to the end where the only token holds no text."""
        return self.event_times_s[0] if self.event_times_s else self.e2e_s

    @property
    def gaps_s(self) -> list[float]:
        """Times between successive events with text: the inter-token latency that a reader sees."""
        times = self.event_times_s
        return [later - earlier for earlier, later in itertools.pairwise(times)]


async def stream_chat(target: Target, prompt: str, max_tokens: int) -> Sample:
    """Send one user message with temperature 0 and read the stream to its end.

    A failure of any kind is a Sample with `error` set, never an exception: the load goes on and counts it.
    """
    address = urlsplit(target.url)
    loop = asyncio.get_running_loop()
    exchange = _Exchange(_request_bytes(target, prompt, max_tokens), loop.create_future())
    transport: asyncio.Transport | None = None
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            transport, _ = await loop.create_connection(
                lambda: exchange, address.hostname or "", address.port or 80
            )
            await exchange.finished
    except (OSError, TimeoutError) as error:
        exchange.sample.error = f"{type(error).__name__}: {error}"
    finally:
        if transport is not None:
            transport.close()
    return exchange.sample


def _request_bytes(target: Target, prompt: str, max_tokens: int) -> bytes:
    body: dict[str, Any] = {
        "model": target.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
    }
    if target.include_usage:
        body["stream_options"] = {"include_usage": True}
    content = msgspec.json.encode(body)
    address = urlsplit(target.url)
    authorization = f"Authorization: Bearer {target.key}\r\n" if target.key else ""
    head = (
        f"POST {address.path.rstrip('/')}/v1/chat/completions HTTP/1.1\r\n"
        f"Host: {address.netloc}\r\n{authorization}"
        "Content-Type: application/json\r\nAccept: text/event-stream\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Event(msgspec.Struct):
    """The fields that are used of a stream's event; `error` and `object` tell an error sent inside it."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    object: str = ""
    error: Any = None


class _Exchange(asyncio.Protocol):
    """Fills `sample` from one response; `finished` resolves at its end, well or badly."""

    _decoder = msgspec.json.Decoder(_Event)

    def __init__(self, request: bytes, finished: asyncio.Future[None]) -> None:
        self.sample = Sample()
        self.finished = finished
        self._request = request
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._pending = b""
        self._is_done = False
        self._started_at = time.perf_counter()
        self._now_s = 0.0

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transports do not inherit from asyncio's.
        cast(asyncio.WriteTransport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._now_s = time.perf_counter() - self._started_at
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, msgspec.DecodeError) as error:
            self._finish(f"unreadable response: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(None if self._is_done else "the connection ended before the stream did")

    # httptools' callbacks

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._pending += body
        if self._status != 200:
            return
        *lines, self._pending = self._pending.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._read_event(line[5:].strip())

    def on_message_complete(self) -> None:
        if self._status != 200:
            self._finish(f"HTTP {self._status}: {self._pending[:200].decode(errors='replace')}")
        else:
            self._finish(None if self._is_done else "the stream ended without [DONE]")

    def _read_event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self._is_done = True
            return
        event = self._decoder.decode(data)
        if event.error is not None or event.object == "error":
            self._finish(f"error in the stream: {data[:200].decode(errors='replace')}")
        for choice in event.choices:
            if choice.delta.content:
                self.sample.event_times_s.append(self._now_s)
                self.sample.text += choice.delta.content
            self.sample.finish_reason = choice.finish_reason or self.sample.finish_reason
        if event.usage is not None:
            self.sample.prompt_tokens = event.usage.prompt_tokens
            self.sample.completion_tokens = event.usage.completion_tokens

    def _finish(self, error: str | None) -> None:
        if self.finished.done():
            return
        self.sample.e2e_s = time.perf_counter() - self._started_at
        if error is None and self.sample.finish_reason == "error":
            error = "the server ended the stream with finish_reason error"
        self.sample.error = error
        self.finished.set_result(None)
