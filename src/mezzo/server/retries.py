"""Calls with an `Idempotency-Key`: answered once, told as often as they are sent again.

The work for such a call goes on when its client leaves: that is what the key is for. Its answer is kept, and billed,
whole; a second call gets it, and waits for it while the first is in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from mezzo.metering.books import Books
from mezzo.metering.idempotency import MAX_KEY_LENGTH, Claim, InFlight, KeptAnswer, KeyReused, claim_for
from mezzo.metering.journal import KeyTaken
from mezzo.protocol.errors import IdempotencyConflict, InvalidArguments, ServiceUnavailable
from mezzo.server.sse import EventStream

KEY_HEADER = "idempotency-key"
REPLAYED_HEADER = "idempotent-replayed"
# A second call waits so long for the first before it is told to come back.
_PATIENCE_S = 60.0
_FIRST_LOOK_S, _LAST_LOOK_S = 0.05, 1.0

_log = structlog.get_logger("mezzo.server")


def claim_of(request: Request, scope_id: str, body: bytes) -> Claim | None:
    """Return the claim of a call, None where it has no key.

    scope_id: the workspace or organisation whose key it is. Raises: InvalidArguments for a key that cannot be one.
    """
    keys = request.headers.getlist(KEY_HEADER)
    if not keys:
        return None
    if len(keys) > 1 or not 0 < len(keys[0]) <= MAX_KEY_LENGTH or not keys[0].isprintable():
        raise InvalidArguments(
            f"Idempotency-Key must be one header of 1 to {MAX_KEY_LENGTH} printable characters",
            param="Idempotency-Key",
        )
    return claim_for(scope_id, keys[0], method=request.method, path=request.scope["path"], body=body)


class Retries:
    """Answers calls with a key, and looks after those whose clients have left. For one event loop."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._alone: set[asyncio.Task[None]] = set()

    async def answer(self, claim: Claim, produce: Callable[[], Awaitable[Response]]) -> Response:
        """Return the stored answer for a claim, or else that of `produce`, which claims the key when it admits.

        Raises: IdempotencyConflict if the key stands for another call, or its first call takes too long.
        """
        deadline_s = asyncio.get_running_loop().time() + _PATIENCE_S
        look_s = _FIRST_LOOK_S
        while True:
            try:
                kept = await self._find(claim)
                return await produce() if kept is None else replay(kept)
            except KeyTaken:
                continue  # it was taken since we looked
            except InFlight:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise IdempotencyConflict(
                        "The first call with this Idempotency-Key is still being answered", retry_after_s=1
                    ) from None
                await asyncio.sleep(look_s)
                look_s = min(2 * look_s, _LAST_LOOK_S)

    async def whole(self, work: Callable[[], Awaitable[Response]]) -> Response:
        """Do work that is not broken off when the client leaves: what it would have been sent is made all the same."""
        working = asyncio.ensure_future(work())
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            self._look_after(_send_to_nobody(working))
            raise

    def guard(self, work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        """Begin work that goes on by itself when the client leaves; what is returned waits for it."""
        return _wait_for(self._look_after(work))

    def _look_after(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)
        return task

    async def finish(self) -> None:
        """Wait for the work whose clients have left."""
        while self._alone:
            await asyncio.wait(set(self._alone))

    async def _find(self, claim: Claim) -> KeptAnswer | None:
        try:
            return await self._books.find_answer(claim)
        except KeyReused:
            raise IdempotencyConflict("This Idempotency-Key was used with another request") from None
        except (SQLAlchemyError, ValueError) as fault:
            _log.error("stored answers cannot be read", kind=type(fault).__name__)
            raise ServiceUnavailable from None


def replay(kept: KeptAnswer) -> Response:
    """Return an answer as it was sent the first time, and say so."""
    return Response(kept.body, status_code=kept.status, headers={**kept.headers, REPLAYED_HEADER: "true"})


async def _wait_for(task: asyncio.Task[None]) -> None:
    await asyncio.shield(task)


async def _send_to_nobody(working: asyncio.Future[Response]) -> None:
    try:
        response = await working
        if isinstance(response, EventStream):
            await response.send_all(_discard)
    except Exception as error:
        _log.info("a call ended after its client had left", kind=type(error).__name__)


async def _discard(message: Message) -> None:
    pass
