"""For whoever runs the server: is it alive, would it answer, how is it doing. No keys, and no secrets."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from mezzo.server.gateway import Gateway
from mezzo.server.services import Services


def health_routes(gateway: Gateway, services: Services) -> APIRouter:
    """Return the routes of probes and metrics."""
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", summary="Whether the process answers")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @router.get("/readyz", summary="Whether a request would be answered now")
    async def readyz() -> Response:
        if gateway.is_draining:
            return _not_ready("the server is shutting down")
        waiting = [backend.info.name for backend in services.router.backends if not backend.is_ready]
        if waiting:
            return _not_ready(f"not ready: {', '.join(waiting)}")
        return JSONResponse({"status": "ready"})

    @router.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(
            generate_latest(services.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST}
        )

    return router


def _not_ready(reason: str) -> Response:
    return JSONResponse({"status": "unavailable", "reason": reason}, status_code=503)
