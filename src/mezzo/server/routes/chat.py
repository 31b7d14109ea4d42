"""POST /v1/chat/completions: translate between HTTP and the gateway, nothing else."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.server.answer import Answering
from mezzo.server.gateway import Gateway
from mezzo.server.openapi import CHAT_OPERATION


def chat_routes(gateway: Gateway, answering: Answering) -> APIRouter:
    """Return the routes of chat completions."""
    router = APIRouter(tags=["chat"])

    @router.post("/v1/chat/completions", **CHAT_OPERATION)
    async def create_chat_completion(request: Request) -> Response:
        return await answering.answer(request, ChatCompletionRequest, gateway.admit)

    return router
