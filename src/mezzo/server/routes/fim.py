"""POST /v1/fim/completions: a text between two others, by weights that were trained to write it."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mezzo.protocol.fim import FimCompletionRequest
from mezzo.server.answer import Answering
from mezzo.server.gateway import Gateway
from mezzo.server.openapi import FIM_OPERATION


def fim_routes(gateway: Gateway, answering: Answering) -> APIRouter:
    """Return the route of completions with a gap."""
    router = APIRouter(tags=["fim"])

    @router.post("/v1/fim/completions", **FIM_OPERATION)
    async def create_fim_completion(request: Request) -> Response:
        return await answering.answer(request, FimCompletionRequest, gateway.admit_fim)

    return router
