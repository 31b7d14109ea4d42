"""From a parsed request to an HTTP response: one JSON object, or a stream of events; made once, told again if asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from mezzo.accounts.access import Access, AccessCache
from mezzo.backends.base import BackendFailed
from mezzo.metering.idempotency import Claim
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import ServiceUnavailable
from mezzo.protocol.fim import FimCompletionRequest
from mezzo.server.auth import authenticate
from mezzo.server.completion import MEDIA_TYPE, complete
from mezzo.server.exchange import Exchange, exchange_of
from mezzo.server.incoming import parse, read_body, run_until_disconnect
from mezzo.server.retries import Retries, claim_of
from mezzo.server.running import RunningChat
from mezzo.server.sse import EventStream, no_padding, random_padding, unguarded
from mezzo.settings import Settings

# A failure within this time is told by its status; after it, inside the stream.
FIRST_EVENT_TIMEOUT_S = 5.0

_R = TypeVar("_R", bound=ChatCompletionRequest | FimCompletionRequest)

Admit = Callable[[Access, _R, Exchange, Claim | None], Awaitable[RunningChat]]


class Answering:
    """Answers the routes that generate."""

    def __init__(self, settings: Settings, access: AccessCache, retries: Retries) -> None:
        self._settings = settings
        self._access = access
        self._retries = retries

    async def answer(self, request: Request, model: type[_R], admit: Admit[_R]) -> Response:
        """Answer a request whose body is a `model`, admitted by `admit`. Raises: ApiError, ClientDisconnect."""
        exchange = exchange_of(request)
        access = await authenticate(request, self._access)
        body = await read_body(request, max_bytes=self._settings.max_body_bytes)
        parsed = await parse(model, body)
        claim = claim_of(request, access.workspace, body)

        async def produce() -> Response:
            chat = await admit(access, parsed, exchange, claim)
            if claim is None:
                return await self._answer(chat, stream=parsed.stream)
            return await self._retries.whole(lambda: self._answer(chat, stream=parsed.stream))

        work = produce() if claim is None else self._retries.answer(claim, produce)
        return await run_until_disconnect(request.receive, work)

    async def _answer(self, chat: RunningChat, *, stream: bool) -> Response:
        """Answer an admitted request, and close it."""
        if stream:
            return await self._open_stream(chat)
        headers = chat.terms.json_headers
        return Response(await complete(chat), media_type=MEDIA_TYPE, headers=headers)

    async def _open_stream(self, chat: RunningChat) -> Response:
        """Wait a moment for the first event, so that an early failure can still be a status."""
        try:
            await chat.wait_for_news(FIRST_EVENT_TIMEOUT_S)
            chat.raise_failure()
            await chat.entered()
        except BackendFailed:
            await chat.aclose()
            raise ServiceUnavailable from None
        except BaseException:
            await chat.aclose()
            raise
        return EventStream(
            chat,
            padding=random_padding if self._settings.stream_padding else no_padding,
            keep_alive_s=self._settings.keep_alive_s,
            guarded=self._retries.guard if chat.keeps_answer else unguarded,
        )
