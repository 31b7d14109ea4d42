"""A real HTTP server on loopback that answers every request with a scripted stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

Script = list[bytes | float | None]


class ScriptedServer:
    """Sends `script`: bytes as one HTTP chunk each, numbers as pauses in seconds, None to cut the connection.

    scripts     what the next requests get instead, one script each
    respond     what makes the script of each request from its body, where it is set
    bodies      the JSON body of every request so far
    heads       its request line and headers
    """

    def __init__(self) -> None:
        self.script: Script = []
        self.scripts: list[Script] = []
        self.respond: Callable[[dict[str, Any]], Script] | None = None
        self.status = b"200 OK"
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[bytes] = []
        self.num_open = 0
        self.max_open = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_open += 1
        self.max_open = max(self.max_open, self.num_open)
        try:
            await self._answer(reader, writer)
        finally:
            self.num_open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        self.bodies.append(json.loads(await reader.readexactly(length)))
        script = self.scripts.pop(0) if self.scripts else self.script
        if self.respond is not None:
            script = self.respond(self.bodies[-1])
        writer.write(b"HTTP/1.1 " + self.status + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in script:
            if part is None:
                return
            if isinstance(part, float):
                await asyncio.sleep(part)
                continue
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


@contextlib.asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    state = ScriptedServer()
    server = await asyncio.start_server(state.handle, "127.0.0.1", 0)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.close()


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def other_scripted() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server
