"""Every exception that reaches the edge, as the answer that a client of the reference API expects.

Our own errors know their bodies (protocol/errors.py); unknown paths and methods get the gateway's shape; a
fault of ours is logged whole and told in two words.
"""

from __future__ import annotations

from typing import Any, ClassVar

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mezzo.accounts.errors import (
    AccountsError,
    Conflict,
    NotAdmitted,
    NotThere,
    TooBusy,
    TooManyAttempts,
    Unacceptable,
)
from mezzo.protocol.errors import (
    ApiError,
    Contradiction,
    DomainError,
    Forbidden,
    InternalError,
    NotFound,
    RequestInvalid,
    TooManyTries,
    TryLater,
    Unauthorized,
)
from mezzo.server.exchange import CLIENT_CLOSED_REQUEST, exchange_of

MAX_MESSAGE_LENGTH = 1000

_log = structlog.get_logger("mezzo.server")


class UploadTimeout(DomainError):
    """The request's body stopped arriving."""

    status = 408
    type: ClassVar[str] = "invalid_request_error"
    code: ClassVar[str | None] = None

    def __init__(self) -> None:
        super().__init__("The request body did not arrive in time")


class RouteNotFound(Exception):
    """A path that matches a pattern and still names nothing, such as `/v1/models/`."""


def add_error_handlers(app: FastAPI) -> None:
    """Register the answers to everything that handlers raise."""
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(AccountsError, _answer_accounts_error)
    app.add_exception_handler(HTTPException, _answer_no_route)
    app.add_exception_handler(RouteNotFound, _answer_no_route)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)


def accounts_error(error: AccountsError, *where: str | int) -> ApiError:
    """Return what a client is told of a refusal. where: the part of the body, beside `param`, that is to blame."""
    match error:
        case NotThere():
            return NotFound(str(error))
        case Conflict():
            return Contradiction(str(error))
        case NotAdmitted():
            return Forbidden(str(error))
        case TooManyAttempts():
            return TooManyTries(str(error), retry_after_s=error.retry_after_s)
        case TooBusy():
            return TryLater(str(error), retry_after_s=1)
        case Unacceptable():
            item = {"type": "value_error", "loc": ["body", *where, error.param], "msg": str(error)}
            return RequestInvalid([item])
    raise AssertionError(f"{type(error).__name__} has no answer")


def error_response(error: ApiError) -> Response:
    """Return the response of an error: its status, body and headers."""
    headers = error.headers()
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(_bounded(error.body()), status_code=error.status, headers=headers)


def _bounded(body: dict[str, Any]) -> dict[str, Any]:
    """Cut long texts: messages may quote what was sent, and an answer does not repeat megabytes."""
    return {name: _cut(value) if isinstance(value, str) else value for name, value in body.items()}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_LENGTH else text[:MAX_MESSAGE_LENGTH] + "…"


async def _answer_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    if not isinstance(error, RequestInvalid):  # its details quote the body
        _log.debug("refused", status=error.status, reason=error.message)
    return error_response(error)


async def _answer_accounts_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AccountsError)
    return await _answer_api_error(request, accounts_error(error))


async def _answer_no_route(request: Request, error: Exception) -> Response:
    """The router found no path, or not with this method: the reference's gateway tells them alike."""
    body = {
        "message": "no Route matched with those values",
        "request_id": exchange_of(request).request_id,
    }
    return JSONResponse(body, status_code=404)


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


class FaultMiddleware:
    """Answers what nobody foresaw with 500, and logs it whole. Inside CORS, so that browsers can read it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_started = False

        async def send_noting_start(message: Message) -> None:
            nonlocal is_started
            is_started = is_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_noting_start)
        except Exception:
            if scope["type"] != "http" or is_started:
                raise  # the protocol below logs it and cuts the connection: the answer cannot be mended
            _log.exception("unexpected error", path=scope["path"])
            await error_response(InternalError())(scope, receive, send)
