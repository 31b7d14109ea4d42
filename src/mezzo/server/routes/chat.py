"""POST /v1/chat/completions: translate between HTTP and the gateway, nothing else."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mezzo.backends.base import BackendFailed
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import ServiceUnavailable
from mezzo.server.auth import Caller, KeyVerifier, authenticate
from mezzo.server.completion import complete
from mezzo.server.exchange import exchange_of
from mezzo.server.gateway import Gateway
from mezzo.server.incoming import parse, read_body, run_until_disconnect
from mezzo.server.openapi import CHAT_OPERATION
from mezzo.server.running import RunningChat
from mezzo.server.sse import EventStream, no_padding, random_padding
from mezzo.settings import Settings

# A failure within this time is told by its status; after it, inside the stream.
FIRST_EVENT_TIMEOUT_S = 5.0


def chat_routes(settings: Settings, gateway: Gateway, verifier: KeyVerifier) -> APIRouter:
    """Return the routes of chat completions."""
    router = APIRouter(tags=["chat"])
    padding = random_padding if settings.stream_padding else no_padding

    @router.post("/v1/chat/completions", **CHAT_OPERATION)
    async def create_chat_completion(request: Request) -> Response:
        exchange = exchange_of(request)
        caller = authenticate(request, verifier)
        exchange.caller = caller.label
        body = await read_body(request, max_bytes=settings.max_body_bytes)
        chat_request = await parse(ChatCompletionRequest, body)
        return await run_until_disconnect(request.receive, answer(request, caller, chat_request))

    async def answer(request: Request, caller: Caller, chat_request: ChatCompletionRequest) -> Response:
        chat = await gateway.admit(caller, chat_request, exchange_of(request))
        if chat_request.stream:
            return await open_stream(chat)
        completion = await complete(chat)
        return Response(completion.to_json(), media_type="application/json", headers=chat.terms.json_headers)

    async def open_stream(chat: RunningChat) -> Response:
        """Wait a moment for the first event, so that an early failure can still be a status."""
        try:
            await chat.wait_for_news(FIRST_EVENT_TIMEOUT_S)
            chat.raise_failure()
        except BackendFailed:
            await chat.aclose()
            raise ServiceUnavailable from None
        except BaseException:
            await chat.aclose()
            raise
        return EventStream(chat, padding=padding, keep_alive_s=settings.keep_alive_s)

    return router
