"""POST /v1/chat/completions: translate between HTTP and the gateway, nothing else."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.server.answer import answer
from mezzo.server.auth import Caller, KeyVerifier, authenticate
from mezzo.server.exchange import exchange_of
from mezzo.server.gateway import Gateway
from mezzo.server.incoming import parse, read_body, run_until_disconnect
from mezzo.server.openapi import CHAT_OPERATION
from mezzo.settings import Settings


def chat_routes(settings: Settings, gateway: Gateway, verifier: KeyVerifier) -> APIRouter:
    """Return the routes of chat completions."""
    router = APIRouter(tags=["chat"])

    @router.post("/v1/chat/completions", **CHAT_OPERATION)
    async def create_chat_completion(request: Request) -> Response:
        exchange = exchange_of(request)
        caller = authenticate(request, verifier)
        exchange.caller = caller.label
        body = await read_body(request, max_bytes=settings.max_body_bytes)
        chat_request = await parse(ChatCompletionRequest, body)
        return await run_until_disconnect(request.receive, admit_and_answer(request, caller, chat_request))

    async def admit_and_answer(request: Request, caller: Caller, body: ChatCompletionRequest) -> Response:
        chat = await gateway.admit(caller, body, exchange_of(request))
        return await answer(chat, settings, stream=body.stream)

    return router
