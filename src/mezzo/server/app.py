"""The ASGI application, put together from what it is handed."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from mezzo import __version__
from mezzo.server.answer import Answering
from mezzo.server.errors import FaultMiddleware, add_error_handlers
from mezzo.server.exchange import CORRELATION_HEADER, ExchangeMiddleware
from mezzo.server.gateway import Gateway
from mezzo.server.openapi import describe
from mezzo.server.retries import Retries
from mezzo.server.routes.admin.routes import admin_routes
from mezzo.server.routes.auth import auth_routes
from mezzo.server.routes.chat import chat_routes
from mezzo.server.routes.fim import fim_routes
from mezzo.server.routes.health import health_routes
from mezzo.server.routes.models import models_routes
from mezzo.server.services import Services, default_limits
from mezzo.settings import Settings


class MezzoApp(FastAPI):
    """A FastAPI application whose description comes from our own types.

    gateway   for whoever runs the application: it drains and breaks off requests at shutdown
    retries   the same: what it does for clients who have left is to be finished
    """

    def __init__(self, gateway: Gateway, retries: Retries, **options: Any) -> None:
        super().__init__(**options)
        self.gateway = gateway
        self.retries = retries

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = describe(self)
        return self.openapi_schema


def create_app(settings: Settings, services: Services) -> MezzoApp:
    """Return the application. It starts and stops nothing: the backends belong to whoever made them."""
    gateway = Gateway(settings, services)
    retries = Retries(services.books)
    app = MezzoApp(
        gateway,
        retries,
        title="mezzo",
        version=__version__,
        docs_url=None,  # the built-in pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would be built from the Host header
        middleware=[
            Middleware(ExchangeMiddleware, metrics=services.metrics, server_timing=settings.server_timing),
            *_cors(settings),
            Middleware(FaultMiddleware),
        ],
    )
    add_error_handlers(app)
    answering = Answering(settings, services.access, retries)
    app.include_router(chat_routes(gateway, answering))
    app.include_router(fim_routes(gateway, answering))
    app.include_router(models_routes(gateway, services.access))
    app.include_router(health_routes(gateway, services))
    app.include_router(
        admin_routes(
            services.database,
            services.access,
            services.seal,
            services.clock,
            default_limits=default_limits(settings),
            model_ids=lambda: sorted(services.router.by_model_id),
        )
    )
    app.include_router(auth_routes(settings, services.database, services.clock, services.secret))
    return app


def _cors(settings: Settings) -> list[Middleware]:
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=[CORRELATION_HEADER, "retry-after"],
        )
    ]
