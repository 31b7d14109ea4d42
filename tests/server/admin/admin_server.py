"""The admin API alone on a real server, over a real database; each answer is held against the API's description."""

from __future__ import annotations

import re
import threading
from datetime import datetime
from typing import Any

import httpx
import jsonschema
import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware

from mezzo.accounts.access import AccessCache, RateLimits
from mezzo.backends.router import Router
from mezzo.metering.idempotency import AnswerSeal
from mezzo.server.errors import FaultMiddleware, add_error_handlers
from mezzo.server.exchange import ExchangeMiddleware
from mezzo.server.http_protocol import ApiProtocol
from mezzo.server.metrics import make_metrics
from mezzo.server.openapi import describe
from mezzo.server.routes.admin.routes import admin_routes
from mezzo.server.run import listen, url_of
from mezzo.store.database import Database
from tests.accounts.world import NOW
from tests.server.live import wait_until

MODEL_ID = "mistral-medium-2505"


class AdminServer:
    """A server in a thread. now: what its clock says."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = NOW
        app = FastAPI(
            redirect_slashes=False,
            middleware=[
                Middleware(ExchangeMiddleware, metrics=make_metrics(Router({}))),
                Middleware(FaultMiddleware),
            ],
        )
        add_error_handlers(app)
        self.access = AccessCache(database, self._clock)
        app.include_router(
            admin_routes(
                database,
                self.access,
                AnswerSeal("s" * 43),
                self._clock,
                default_limits=RateLimits(90, 1000, None),
                model_ids=lambda: [MODEL_ID],
            )
        )
        self.description = describe(app)
        self._listener = listen("127.0.0.1", 0)
        self.url = url_of(self._listener)
        # One for all: making a client takes longer than most calls.
        self.http = httpx.Client(base_url=self.url + "/v1/admin", timeout=20, trust_env=False)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, http=ApiProtocol, lifespan="off", log_config=None, access_log=False, server_header=False
            )
        )
        self._thread = threading.Thread(
            target=lambda: self._server.run(sockets=[self._listener]), name="admin server"
        )

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self._server.started, timeout_s=10)

    def stop(self) -> None:
        self.http.close()
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._listener.close()

    def _clock(self) -> datetime:
        return self.now


class AdminClient:
    """Calls an admin server with a key, and checks that every answer is one that the description promises."""

    def __init__(self, server: AdminServer, key: str | None) -> None:
        self._server = server
        self._headers = {} if key is None else {"x-api-key": key}

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return any answer, unchecked."""
        return self._server.http.request(method, path, headers=self._headers, **options)

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        if body is not None:
            options["json"] = body
        response = self.send(method, path, **options)
        self._check(method, path, response)
        return response

    def get(self, path: str, **query: Any) -> Any:
        """Return the body of a 200."""
        return self.ok("GET", path, params=query)

    def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Return the body of a 200."""
        response = self.call(method, path, body, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, status: int, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Return the `detail` of a refusal."""
        response = self.call(method, path, body, **options)
        assert response.status_code == status, response.text
        return response.json()["detail"]

    def _check(self, method: str, path: str, response: httpx.Response) -> None:
        documented = operation_of(self._server.description, method, path)["responses"]
        assert str(response.status_code) in documented, (method, path, response.status_code, response.text)
        content = documented[str(response.status_code)].get("content")
        if content is None:
            assert response.content == b""
            return
        assert response.headers["content-type"] == "application/json"
        schema = content["application/json"]["schema"]
        components = self._server.description["components"]
        jsonschema.Draft202012Validator({**schema, "components": components}).validate(response.json())


def operation_of(description: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    """Return the description of the endpoint that a path leads to."""
    for template, operations in description["paths"].items():
        pattern = re.sub(r"\\{.*?\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, "/v1/admin" + path) and method.lower() in operations:
            return operations[method.lower()]
    raise AssertionError(f"{method} {path} is not described")
