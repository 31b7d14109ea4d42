"""One streamed chat completion, timed: a client that costs little.

The client may share its cores with the server it measures. So it speaks HTTP/1.1 through a C parser on a bare
asyncio protocol, opens one connection per request, and decodes of each event only the fields it needs.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from mezzo.bench.sse import EventError, EventLines, read_event

Dialect = Literal["mistral", "openai"]


class Message(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """content: a text, or parts as the API has them."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]]
    prefix: bool = False


class ChatRequest(msgspec.Struct, frozen=True):
    """What is asked. prediction: the text that the answer will probably be, sent as the API's `prediction`."""

    messages: tuple[Message, ...]
    max_tokens: int
    prediction: str | None = None


def user_request(content: str, max_tokens: int) -> ChatRequest:
    return ChatRequest((Message("user", content),), max_tokens)


class Target(msgspec.Struct, frozen=True):
    """Where requests go, and what all of them have in common.

    url       base URL, http or https, without `/v1`
    dialect   `openai` sends `stream_options`, for servers that count tokens only when asked; Mistral's and mezzo
              always count, and refuse that field
    """

    name: str
    url: str
    model: str
    key: str | None = None
    dialect: Dialect = "mistral"
    temperature: float = 0.0
    timeout_s: float = 300.0

    def __repr__(self) -> str:
        return f"Target({self.name!r}, {self.url!r}, {self.model!r})"  # without the key


class Failure(msgspec.Struct, frozen=True):
    """Why a request does not count. kind: few and fixed, to be counted by; detail: what the server or system said."""

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


@dataclass
class Sample:
    """What one request showed to its client. Times are seconds since `started_at`.

    started_at           on the clock of `time.perf_counter`: just before the connection was opened, or when it was due
    event_times_s        arrival of each event that carried text
    completion_tokens    as the server counted them, never the number of events
    has_usage            whether it counted
    """

    started_at: float = field(default_factory=time.perf_counter)
    event_times_s: list[float] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    has_usage: bool = False
    e2e_s: float = 0.0
    failure: Failure | None = None

    @property
    def ttft_s(self) -> float:
        """Time to the first text; to the end where the only token holds no text."""
        return self.event_times_s[0] if self.event_times_s else self.e2e_s

    @property
    def gaps_s(self) -> list[float]:
        """Times between successive events with text: the inter-token latency that a reader sees."""
        return [later - earlier for earlier, later in itertools.pairwise(self.event_times_s)]


async def stream_chat(target: Target, request: ChatRequest, sample: Sample | None = None) -> Sample:
    """Send one request and read the stream to its end, filling the sample while it is read; a new one by default.

    A failure of any kind is a Sample with `failure` set, never an exception: the load goes on and counts it.
    """
    address = urlsplit(target.url)
    loop = asyncio.get_running_loop()
    sample = sample or Sample()
    exchange = _Exchange(_request_bytes(target, request), loop.create_future(), sample)
    is_tls = address.scheme == "https"
    transport: asyncio.Transport | None = None
    try:
        async with asyncio.timeout(target.timeout_s):
            transport, _ = await loop.create_connection(
                lambda: exchange,
                address.hostname or "",
                address.port or (443 if is_tls else 80),
                ssl=_tls() if is_tls else None,
            )
            await exchange.finished
    except TimeoutError:
        exchange.fail(Failure("timeout", f"no end after {target.timeout_s:g} s"))
    except OSError as error:
        exchange.fail(Failure("connection", f"{type(error).__name__}: {error.strerror or error}"))
    finally:
        if transport is not None:
            transport.abort()
    if sample.failure is not None and target.key:
        # A server may quote what it was sent.
        detail = sample.failure.detail.replace(target.key, "***")
        sample.failure = Failure(sample.failure.kind, detail)
    return sample


@functools.cache
def _tls() -> ssl.SSLContext:
    """Made once: reading the system's certificates takes tens of milliseconds."""
    return ssl.create_default_context()


def _request_bytes(target: Target, request: ChatRequest) -> bytes:
    body: dict[str, Any] = {
        "model": target.model,
        "messages": request.messages,
        "max_tokens": request.max_tokens,
        "temperature": target.temperature,
        "stream": True,
    }
    if request.prediction is not None:
        body["prediction"] = {"type": "content", "content": request.prediction}
    if target.dialect == "openai":
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


class _Exchange(asyncio.Protocol):
    """Fills `sample` from one response; `finished` resolves at its end, well or badly."""

    def __init__(self, request: bytes, finished: asyncio.Future[None], sample: Sample) -> None:
        self.sample = sample
        self.finished = finished
        self._request = request
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._lines = EventLines()
        self._refusal = b""
        self._is_done = False
        self._is_over = False
        self._now_s = 0.0

    def fail(self, failure: Failure) -> None:
        """End the exchange from outside, where nothing more will arrive."""
        self._finish(failure)

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transports do not inherit from asyncio's.
        cast(asyncio.WriteTransport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._now_s = time.perf_counter() - self.sample.started_at
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, EventError) as error:
            self._finish(Failure("unreadable response", str(error)))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._status in (0, 200):
            cut = Failure("cut stream", "the connection ended before the stream did")
            self._finish(None if self._is_done else cut)
        else:
            self._finish(self._refused())  # with a body that ends where the connection does

    # httptools' callbacks

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._status != 200:
            self._refusal += body[: 200 - len(self._refusal)]
            return
        for data in self._lines.feed(body):
            self._read_event(data)

    def on_message_complete(self) -> None:
        if self._status != 200:
            self._finish(self._refused())
        else:
            # Some servers leave [DONE] out; then a finish reason in a body that came to its own end has to do.
            is_whole = self._is_done or self.sample.finish_reason is not None
            self._finish(
                None if is_whole else Failure("cut stream", "it ended without [DONE] or finish reason")
            )

    def _refused(self) -> Failure:
        return Failure(f"HTTP {self._status}", self._refusal.decode(errors="replace"))

    def _read_event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self._is_done = True
            return
        event, sample = read_event(data), self.sample
        if event.is_error:
            self._finish(Failure("error in the stream", data[:200].decode(errors="replace")))
        for choice in event.choices:
            if choice.delta.has_text:
                sample.event_times_s.append(self._now_s)
                sample.text += choice.delta.answer
            sample.finish_reason = choice.finish_reason or sample.finish_reason
        if event.usage is not None:
            sample.has_usage = True
            sample.prompt_tokens = event.usage.prompt_tokens
            sample.cached_tokens = event.usage.cached_tokens
            sample.completion_tokens = event.usage.completion_tokens

    def _finish(self, failure: Failure | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self.sample.e2e_s = time.perf_counter() - self.sample.started_at
        if failure is None and self.sample.finish_reason == "error":
            failure = Failure("error in the stream", "the server ended it with finish_reason error")
        self.sample.failure = failure
        if not self.finished.done():  # nobody waits any more after a timeout
            self.finished.set_result(None)
