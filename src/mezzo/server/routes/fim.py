"""POST /v1/fim/completions: a text between two others, by weights that were trained to write it."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mezzo.protocol.fim import FimCompletionRequest
from mezzo.server.answer import answer
from mezzo.server.auth import Caller, KeyVerifier, authenticate
from mezzo.server.exchange import exchange_of
from mezzo.server.gateway import Gateway
from mezzo.server.incoming import parse, read_body, run_until_disconnect
from mezzo.server.openapi import FIM_OPERATION
from mezzo.settings import Settings


def fim_routes(settings: Settings, gateway: Gateway, verifier: KeyVerifier) -> APIRouter:
    """Return the route of completions with a gap."""
    router = APIRouter(tags=["fim"])

    @router.post("/v1/fim/completions", **FIM_OPERATION)
    async def create_fim_completion(request: Request) -> Response:
        exchange = exchange_of(request)
        caller = authenticate(request, verifier)
        exchange.caller = caller.label
        body = await read_body(request, max_bytes=settings.max_body_bytes)
        fim_request = await parse(FimCompletionRequest, body)
        return await run_until_disconnect(request.receive, admit_and_answer(request, caller, fim_request))

    async def admit_and_answer(request: Request, caller: Caller, body: FimCompletionRequest) -> Response:
        chat = await gateway.admit_fim(caller, body, exchange_of(request))
        return await answer(chat, settings, stream=body.stream)

    return router
