"""GET /v1/models and GET /v1/models/{id}: the cards of what is served."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mezzo.accounts.access import AccessCache
from mezzo.protocol.models import ModelList
from mezzo.server.auth import authenticate
from mezzo.server.errors import RouteNotFound
from mezzo.server.gateway import Gateway
from mezzo.server.openapi import MODEL_OPERATION, MODELS_OPERATION


def models_routes(gateway: Gateway, access: AccessCache) -> APIRouter:
    """Return the routes of model cards."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", **MODELS_OPERATION)
    async def list_models(request: Request) -> Response:
        await authenticate(request, access)
        wanted = request.query_params
        cards = [
            card
            for card in gateway.list_models().data
            if wanted.get("model", card.id) == card.id
            and wanted.get("provider", card.owned_by) == card.owned_by
        ]
        return Response(ModelList(data=cards).to_json(), media_type="application/json")

    @router.get("/v1/models/{model_id:path}", **MODEL_OPERATION)
    async def retrieve_model(request: Request) -> Response:
        model_id = request.path_params["model_id"]
        if not model_id:
            raise RouteNotFound
        await authenticate(request, access)
        return Response(gateway.find_model(model_id).to_json(), media_type="application/json")

    return router
