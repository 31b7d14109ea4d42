"""The two cookies: of a session, and of a single sign-on that is on its way to the provider and back.

Neither is readable by scripts, nor sent along when another site's page posts here.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from cryptography.fernet import InvalidToken
from starlette.requests import Request
from starlette.responses import Response

from mezzo.kit.sealing import sealing_key

SESSION_COOKIE = "mezzo_session"
SIGN_ON_COOKIE = "mezzo_sign_on"
SIGN_ON_PATH = "/auth/oidc"
SIGN_ON_LIFETIME_S = 600


class Cookies:
    """Sets, reads and takes away cookies of one server.

    is_https: whether browsers reach it by https, though it may not see that behind a proxy.
    secret_key: the installation's. What a sign-on has to remember is encrypted with a key derived from it, so any
    server of the installation can go on where another began.
    """

    def __init__(self, *, is_https: bool, secret_key: str) -> None:
        self._is_https = is_https
        self._fernet = sealing_key(secret_key, "sign-on cookie")

    def set_session(self, request: Request, response: Response, secret: str, *, lifetime_s: int) -> None:
        """Let the browser keep a session."""
        self._set(request, response, SESSION_COOKIE, secret, path="/", max_age=lifetime_s)

    def session_of(self, request: Request) -> str | None:
        """Return the secret of the session that a browser claims to have."""
        return request.cookies.get(SESSION_COOKIE)

    def drop_session(self, request: Request, response: Response) -> None:
        """Let the browser forget its session."""
        self._set(request, response, SESSION_COOKIE, "", path="/", max_age=0)

    def set_sign_on(self, request: Request, response: Response, state: dict[str, Any], now: datetime) -> None:
        """Let the browser carry what a single sign-on has to remember. It cannot read or change it."""
        sealed = self._fernet.encrypt_at_time(json.dumps(state).encode(), int(now.timestamp())).decode()
        self._set(request, response, SIGN_ON_COOKIE, sealed, path=SIGN_ON_PATH, max_age=SIGN_ON_LIFETIME_S)

    def sign_on_of(self, request: Request, now: datetime) -> dict[str, Any]:
        """Return what this browser's sign-on had to remember; nothing if there is none, or it took too long."""
        sealed = request.cookies.get(SIGN_ON_COOKIE, "").encode()
        try:
            opened = self._fernet.decrypt_at_time(sealed, SIGN_ON_LIFETIME_S, int(now.timestamp()))
        except InvalidToken:
            return {}
        state: dict[str, Any] = json.loads(opened)
        return state

    def drop_sign_on(self, request: Request, response: Response) -> None:
        """Let the browser forget a sign-on that ended."""
        self._set(request, response, SIGN_ON_COOKIE, "", path=SIGN_ON_PATH, max_age=0)

    def _set(
        self, request: Request, response: Response, name: str, value: str, *, path: str, max_age: int
    ) -> None:
        response.set_cookie(
            name,
            value,
            path=path,
            max_age=max_age,
            secure=self._is_https or request.scope["scheme"] == "https",
            httponly=True,
            samesite="lax",
        )
