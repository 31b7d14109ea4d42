"""Signing in at an identity provider: there and back."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mezzo.accounts.errors import AccountsError
from mezzo.protocol.errors import ApiError, NotFound, NotSignedIn, RequestInvalid, TryLater
from mezzo.server.cookies import SIGN_ON_PATH, Cookies
from mezzo.server.errors import accounts_error, error_response
from mezzo.server.provider import ProviderUnavailable, SignOnRefused
from mezzo.server.routes.auth import operations
from mezzo.server.routes.auth.browser import Browser, unstored
from mezzo.server.sign_in import SignIn

if TYPE_CHECKING:
    from mezzo.server.oidc import SignOn

CALLBACK_PATH = f"{SIGN_ON_PATH}/callback"
MAX_RETURN_LENGTH = 1024
# A path of this server: no second slash or backslash, which would begin a host's name.
_OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")
_RETRY_AFTER_S = 30
_RETURN_TO = "return_to"

_log = structlog.get_logger("mezzo.server")


def single_sign_on_routes(
    sign_on: SignOn | None,
    sign_in: SignIn,
    browser: Browser,
    cookies: Cookies,
    clock: Callable[[], datetime],
) -> APIRouter:
    """Return the routes. sign_on: None where no provider was set, and every request is answered 404."""
    router = APIRouter()

    @router.get("/auth/oidc/sign-in", **operations.OIDC_SIGN_IN)
    async def leave(request: Request) -> Response:
        provider = _enabled(sign_on)
        return_to = _own_path(request.query_params.get("return_to", "/"))
        request.scope["session"] = {}
        try:
            response = await provider.begin(request)
        except ProviderUnavailable as error:
            raise _unavailable(error) from None
        cookies.set_sign_on(request, response, {**request.session, _RETURN_TO: return_to}, clock())
        return unstored(response)

    @router.get(CALLBACK_PATH, **operations.OIDC_CALLBACK)
    async def come_back(request: Request) -> Response:
        provider = _enabled(sign_on)
        request.scope["session"] = cookies.sign_on_of(request, clock())
        try:
            response = await enter(provider, request)
        except ApiError as error:
            response = error_response(error)
        except AccountsError as error:
            response = error_response(accounts_error(error))
        cookies.drop_sign_on(request, response)  # it is good for one attempt
        return unstored(response)

    async def enter(provider: SignOn, request: Request) -> Response:
        try:
            identity = await provider.finish(request)
        except ProviderUnavailable as error:
            raise _unavailable(error) from None
        except SignOnRefused as error:
            _log.warning("sign-in failed", method="oidc", reason=str(error))
            raise NotSignedIn("The sign-in was refused, or took too long: start again") from None
        session = await sign_in.by_identity(identity, ended=browser.secret_of(request))
        response = RedirectResponse(request.session[_RETURN_TO], status_code=303)
        browser.keep(request, response, session)
        return response

    return router


def _enabled(sign_on: SignOn | None) -> SignOn:
    if sign_on is None:
        raise NotFound("Single sign-on is not set up on this server")
    return sign_on


def _own_path(return_to: str) -> str:
    if len(return_to) > MAX_RETURN_LENGTH or not _OWN_PATH.fullmatch(return_to):
        message = "return_to is a path of this server"
        raise RequestInvalid([{"type": "value_error", "loc": ["query", "return_to"], "msg": message}])
    return return_to


def _unavailable(error: ProviderUnavailable) -> TryLater:
    _log.error("the identity provider cannot be used", reason=str(error))
    return TryLater(
        "The identity provider cannot be used at this moment; the server's log says why",
        retry_after_s=_RETRY_AFTER_S,
    )
