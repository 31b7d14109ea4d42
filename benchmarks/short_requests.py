"""Many short chat completions over connections that are kept: requests per second, and how long each one takes.

For what stands before a model rather than for models: `mezzo bench` measures streams. The client is a bare asyncio
protocol on a C parser, so that it is not what is measured; `client_cpu_s` in every record tells what it cost.
"""

from __future__ import annotations

import asyncio
import collections
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

from mezzo.bench.client import Target
from mezzo.bench.figures import Percentiles, percentiles_ms

TIMEOUT_S = 60.0
# `auth;dur=0.12, limits;dur=0.05`: milliseconds, as Server-Timing has them (W3C).
_TIMING = re.compile(r"([\w-]+);dur=([0-9.]+)")


class ShortFigures(msgspec.Struct, frozen=True):
    """One load, as its clients saw it.

    connections       open at the same time: all busy in a closed loop, as many as are needed in an open one
    rate              requests a second that were to be sent; None for a closed loop
    requests          answered well; latency_ms is of those, in an open loop from the moment each was due
    client_cpu_s      processor time of the load generator itself
    server_timing_ms  what the server says of its own parts where it sends a Server-Timing header: by name, and `all
                      parts` for their sum in each request
    """

    connections: int
    rate: float | None
    requests: int
    errors: dict[str, int]
    wall_s: float
    client_cpu_s: float
    requests_per_s: float
    latency_ms: Percentiles | None
    server_timing_ms: dict[str, Percentiles]


class Answer(msgspec.Struct):
    """One request. error: None, or why it does not count."""

    latency_s: float = 0.0
    error: str | None = None
    server_timing: str = ""


async def closed_loop(target: Target, *, connections: int, seconds: float) -> ShortFigures:
    """Keep a number of connections busy, each with the next request as soon as the last one is answered."""
    request = request_bytes(target)
    answers: list[Answer] = []
    deadline = time.perf_counter() + seconds

    async def keep_busy() -> None:
        connection = Connection(target)
        while time.perf_counter() < deadline:
            answers.append(await connection.ask(request))
        connection.close()

    started_at, cpu_before = time.perf_counter(), time.process_time()
    await asyncio.gather(*(keep_busy() for _ in range(connections)))
    return _figures(answers, started_at, cpu_before, connections=connections, rate=None)


async def open_loop(target: Target, *, rate: float, seconds: float) -> ShortFigures:
    """Send requests at a fixed rate, whether earlier ones are answered or not.

    A request that had to wait for its turn in the client counts from when it was due: what a server held up is counted.
    """
    request = request_bytes(target)
    idle: list[Connection] = []
    num_connections = 0

    async def ask_at(due: float) -> Answer:
        nonlocal num_connections
        await asyncio.sleep(due - time.perf_counter())
        if not idle:
            num_connections += 1
        connection = idle.pop() if idle else Connection(target)
        answer = await connection.ask(request)
        answer.latency_s = time.perf_counter() - due
        idle.append(connection)
        return answer

    started_at, cpu_before = time.perf_counter(), time.process_time()
    begin = started_at + 0.01
    answers = await asyncio.gather(*(ask_at(begin + i / rate) for i in range(int(rate * seconds))))
    figures = _figures(answers, started_at, cpu_before, connections=num_connections, rate=rate)
    for connection in idle:
        connection.close()
    return figures


def request_bytes(target: Target) -> bytes:
    """Return a request for a few tokens, ready to be sent any number of times."""
    body = {
        "model": target.model,
        "messages": [{"role": "user", "content": "Count from one to four."}],
        "max_tokens": 8,
    }
    content = msgspec.json.encode(body)
    address = urlsplit(target.url)
    authorization = f"Authorization: Bearer {target.key}\r\n" if target.key else ""
    head = (
        f"POST {address.path.rstrip('/')}/v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\n{authorization}"
        f"Content-Type: application/json\r\nAccept: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


class Connection:
    """One connection that is opened when it is needed, and again when the server closed it."""

    def __init__(self, target: Target) -> None:
        address = urlsplit(target.url)
        self._address = address.hostname or "", address.port or 80
        self._protocol: _Protocol | None = None

    async def ask(self, request: bytes) -> Answer:
        """Send a request and wait for its answer. A failure of any kind is an Answer with `error` set."""
        started_at = time.perf_counter()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if self._protocol is None or self._protocol.is_closed:
                    loop = asyncio.get_running_loop()
                    _, self._protocol = await loop.create_connection(_Protocol, *self._address)
                answer = await self._protocol.ask(request)
        except (OSError, TimeoutError) as error:
            answer = Answer(error=f"{type(error).__name__}: {error}")
            self.close()
        answer.latency_s = time.perf_counter() - started_at
        return answer

    def close(self) -> None:
        if self._protocol is not None:
            self._protocol.close()
            self._protocol = None


class _Protocol(asyncio.Protocol):
    """Reads one response after another."""

    def __init__(self) -> None:
        self.is_closed = False
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._answer = Answer()
        self._body: list[bytes] = []

    async def ask(self, request: bytes) -> Answer:
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._answer, self._body = Answer(), []
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.close()
            self._finish(f"unreadable response: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._finish("the connection ended before the answer did")

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"server-timing":
            self._answer.server_timing = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status, body = self._parser.get_status_code(), b"".join(self._body)
        if status != 200 or b'"choices"' not in body:
            self._finish(f"HTTP {status}: {body[:200].decode(errors='replace')}")
        else:
            self._finish(None)

    def _finish(self, error: str | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._answer.error = error
            self._waiting.set_result(self._answer)


def _figures(
    answers: Sequence[Answer], started_at: float, cpu_before: float, *, connections: int, rate: float | None
) -> ShortFigures:
    wall_s, client_cpu_s = time.perf_counter() - started_at, time.process_time() - cpu_before
    good = [answer for answer in answers if answer.error is None]
    return ShortFigures(
        connections=connections,
        rate=rate,
        requests=len(good),
        errors=dict(collections.Counter(answer.error for answer in answers if answer.error is not None)),
        wall_s=wall_s,
        client_cpu_s=client_cpu_s,
        requests_per_s=len(good) / wall_s,
        latency_ms=percentiles_ms(answer.latency_s for answer in good),
        server_timing_ms=dict(_server_timings(good)),
    )


def _server_timings(answers: Iterable[Answer]) -> Iterator[tuple[str, Percentiles]]:
    seconds: dict[str, list[float]] = {}
    for answer in answers:
        parts = [
            (name, float(milliseconds) / 1000) for name, milliseconds in _TIMING.findall(answer.server_timing)
        ]
        for name, value in [*parts, ("all parts", sum(value for _, value in parts))] if parts else ():
            seconds.setdefault(name, []).append(value)
    for name, values in seconds.items():
        percentiles = percentiles_ms(iter(values))
        if percentiles is not None:
            yield name, percentiles
