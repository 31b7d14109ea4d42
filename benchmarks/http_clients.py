"""What an HTTP client costs for one streamed answer: httpx and aiohttp before an upstream that does nothing.

    python -m benchmarks.http_clients [--requests 3000] [--rounds 3]

Both run in turn on uvloop, with connections that are kept, one request at a time and eight; each event is decoded, as
`mezzo.backends.upstream` does. Prints requests per second and the processor time of a request, medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import httpx
import msgspec
import uvloop

from benchmarks.gateway_servers import noop_spec
from benchmarks.servers import running
from mezzo.backends.upstream.sse import EventReader
from mezzo.backends.upstream.wire import decode_chunk

CONNECTIONS = (1, 8)
_BODY = msgspec.json.encode(
    {"model": "noop", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
)
_HEADERS = {"content-type": "application/json"}

Ask = Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def with_httpx(url: str) -> AsyncIterator[Ask]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(trust_env=False, limits=limits) as client:

        async def ask() -> None:
            events = EventReader(1_000_000)
            async with client.stream("POST", url, content=_BODY, headers=_HEADERS) as response:
                async for piece in response.aiter_raw():
                    _decode(events.feed(piece))

        yield ask


@contextlib.asynccontextmanager
async def with_aiohttp(url: str) -> AsyncIterator[Ask]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def ask() -> None:
            events = EventReader(1_000_000)
            async with session.post(url, data=_BODY, headers=_HEADERS) as response:
                while piece := await response.content.readany():
                    _decode(events.feed(piece))

        yield ask


CLIENTS = {"httpx": with_httpx, "aiohttp": with_aiohttp}


def _decode(events: list[bytes]) -> None:
    for data in events:
        if data != b"[DONE]":
            decode_chunk(data)


async def measure(name: str, url: str, *, connections: int, num_requests: int) -> tuple[float, float]:
    """Return requests per second, and microseconds of processor time for each."""
    async with CLIENTS[name](url) as ask:
        for _ in range(50):
            await ask()
        waiting = iter(range(num_requests))

        async def keep_busy() -> None:
            for _ in waiting:
                await ask()

        started_at, cpu_before = time.perf_counter(), time.process_time()
        await asyncio.gather(*(keep_busy() for _ in range(connections)))
        wall_s, cpu_s = time.perf_counter() - started_at, time.process_time() - cpu_before
    return num_requests / wall_s, 1e6 * cpu_s / num_requests


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    spec = noop_spec()
    url = f"{spec.url}/v1/chat/completions"
    figures: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with running(spec):
        for _ in range(args.rounds):
            for connections in CONNECTIONS:
                for name in CLIENTS:
                    one = uvloop.run(measure(name, url, connections=connections, num_requests=args.requests))
                    figures.setdefault((name, connections), []).append(one)
    for (name, connections), pairs in figures.items():
        rate, cpu_us = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(f"{name:8} {connections} connections: {rate:6.0f} requests/s, {cpu_us:5.0f} us a request")


if __name__ == "__main__":
    main()
