"""POST /v1/fim/completions: no model of the Medium family fills in the middle, and the answer says so."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mezzo.protocol.fim import FimCompletionRequest
from mezzo.server.auth import KeyVerifier, authenticate
from mezzo.server.exchange import exchange_of
from mezzo.server.gateway import Gateway
from mezzo.server.incoming import parse, read_body
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
        fim_request = await parse(
            FimCompletionRequest, await read_body(request, max_bytes=settings.max_body_bytes)
        )
        gateway.refuse_fim(caller, fim_request.model, exchange)

    return router
