"""What comes from the client: the body, within limits of size and patience, and the news that it left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from mezzo.protocol.errors import PayloadTooLarge
from mezzo.protocol.parse import parse_body
from mezzo.server.errors import UploadTimeout

UPLOAD_IDLE_TIMEOUT_S = 60.0
# Parsing this much takes some ten milliseconds; more of it is done in a thread, where streams do not wait.
_MAX_INLINE_BYTES = 1024 * 1024

_M = TypeVar("_M", bound=BaseModel)
_T = TypeVar("_T")


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Return the whole body.

    Raises: PayloadTooLarge as soon as it is known, by the length announced or by what arrives; UploadTimeout
    if nothing arrives for UPLOAD_IDLE_TIMEOUT_S; ClientDisconnect.
    """
    # The HTTP parser has refused lengths that are no numbers, and cuts a body at the length announced.
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    more = True
    while more:
        try:
            message = await asyncio.wait_for(request.receive(), UPLOAD_IDLE_TIMEOUT_S)
        except TimeoutError:
            raise UploadTimeout from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        more = message.get("more_body", False)
    return bytes(body)


async def parse(model: type[_M], body: bytes) -> _M:
    """Parse a body without holding up the event loop. Raises: RequestInvalid."""
    if len(body) <= _MAX_INLINE_BYTES:
        return parse_body(model, body)
    return await asyncio.to_thread(parse_body, model, body)


async def run_until_disconnect(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work`, whose request was read to its end; cancel it and wait for it when the client leaves.

    Work that is done counts as done, whether or not the client is still there.
    Raises: ClientDisconnect; what `work` raises.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"Request body is larger than {max_bytes} bytes")
