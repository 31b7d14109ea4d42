"""A real web server on loopback whose answers are written byte by byte, and what stands for the world's names."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from mezzo.prompt.media.addresses import IPAddress

Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class WebServer:
    """Answers each path with the bytes, or the function, given for it.

    heads   of the requests that came, as they came
    num_connections, num_open   accepted so far; not yet closed
    """

    answers: dict[str, bytes | Handler] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    num_connections: int = 0
    num_open: int = 0
    port: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        self.num_open += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                answer = self.answers.get(
                    head.split()[1], b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
                )
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                else:
                    await answer(writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
            self.num_open -= 1


@contextlib.asynccontextmanager
async def serving(
    server: WebServer, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[WebServer]:
    """Run a server on a loopback address, on a free port if none is given."""
    running = await asyncio.start_server(server.handle, host, port, ssl=tls)
    server.port = running.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        running.close()


def ok(body: bytes, *headers: str) -> bytes:
    """Return an answer with a body and its length."""
    return answer(200, body, f"content-length: {len(body)}", *headers)


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    """Return an answer with nothing but what is given."""
    return "\r\n".join([f"HTTP/1.1 {status} X", *headers, "connection: close", "", ""]).encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    return answer(status, b"", f"location: {location}", "content-length: 0")


async def drip(writer: asyncio.StreamWriter) -> None:
    """Answer a byte at a time."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n")
    for _ in range(900):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


class Names:
    """A resolver that knows what it was told; a name with several lists of addresses gives them in turn.

    asked   the names it was asked for, in order
    """

    def __init__(self, **by_name: str | list[str] | list[list[str]]) -> None:
        self.by_name = by_name
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[IPAddress]:
        self.asked.append(host)
        found = self.by_name.get(host.partition(".")[0])
        if found is None:
            raise OSError("no such name")
        if isinstance(found, str):
            return [ip_address(found)]
        first = found[0]
        if isinstance(first, str):
            return [ip_address(address) for address in found]
        turn = min(self.asked.count(host), len(found)) - 1
        return [ip_address(address) for address in found[turn]]


@dataclass
class OnlyServer:
    """Permits one loopback port, and nothing else: what a test's own server needs, redirects to others refused."""

    port: int
    also: frozenset[int] = frozenset()

    def permits(self, host: str, address: IPAddress, port: int) -> bool:
        return str(address) == "127.0.0.1" and port in {self.port, *self.also}
