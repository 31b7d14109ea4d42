"""What is between a browser and a session: its cookie, and proof that a page of ours sent the request.

Cookies go along with requests that other sites' pages make. Such a page can send no `application/json` without being
asked about first, and cannot hide where it comes from.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from mezzo.accounts.sessions import SessionUser
from mezzo.protocol.base import WireModel
from mezzo.protocol.errors import Forbidden, NotJson, NotSignedIn, RequestInvalid
from mezzo.protocol.sign_in import OrganizationName, SessionAnswer, SignedInUser, WorkspaceRoles
from mezzo.server.client_address import ClientAddresses
from mezzo.server.cookies import Cookies
from mezzo.server.exchange import exchange_of
from mezzo.server.incoming import parse, read_body
from mezzo.server.sign_in import Session, SignIn

MAX_BODY_BYTES = 16 * 1024

_M = TypeVar("_M", bound=WireModel)


class Browser:
    """Reads requests that change something, and hands out sessions. public_url: None where it was not set."""

    def __init__(
        self,
        sign_in: SignIn,
        cookies: Cookies,
        addresses: ClientAddresses,
        *,
        lifetime: timedelta,
        public_url: str | None,
    ) -> None:
        self._sign_in = sign_in
        self._cookies = cookies
        self._addresses = addresses
        self._lifetime = lifetime
        self._public_url = public_url

    async def read(self, request: Request, model: type[_M]) -> _M:
        """Return the body of a request that a page of ours, or a program, made.

        Raises: NotJson, Forbidden for another site's; RequestInvalid, which never repeats what was sent; what
        `read_body` raises.
        """
        self._check_origin(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise NotJson
        body = await read_body(request, max_bytes=MAX_BODY_BYTES)
        try:
            return await parse(model, body)
        except RequestInvalid as error:
            # A password may stand anywhere in a body that does not fit.
            raise RequestInvalid([_without_input(item) for item in error.details]) from None

    def address_of(self, request: Request) -> str:
        """Return the address of the network that a request comes from."""
        return self._addresses.of(request)

    def secret_of(self, request: Request) -> str | None:
        """Return the secret of the session that a browser claims to have."""
        return self._cookies.session_of(request)

    async def session_of(self, request: Request) -> Session:
        """Return the session in which a request was sent. Raises: NotSignedIn."""
        secret = self.secret_of(request)
        session = None if secret is None else await self._sign_in.find(secret)
        if session is None:
            raise NotSignedIn("Not signed in")
        exchange_of(request).caller = f"user {session.user.id}"
        return session

    def keep(self, request: Request, response: Response, session: Session) -> None:
        """Give the browser a session that began."""
        exchange_of(request).caller = f"user {session.user.id}"
        lifetime_s = int(self._lifetime.total_seconds())
        self._cookies.set_session(request, response, session.secret, lifetime_s=lifetime_s)

    def forget(self, request: Request, response: Response) -> None:
        """Take the session from the browser."""
        self._cookies.drop_session(request, response)

    def _check_origin(self, request: Request) -> None:
        origins = request.headers.getlist("origin")
        own = f"{request.scope['scheme']}://{request.headers.get('host', '')}"
        if any(origin not in (own, self._public_url) for origin in origins):
            raise Forbidden(
                "The request comes from another site's page (behind a proxy, the setting public_url says which "
                "site is this one)"
            )


def answer(user: SessionUser) -> Response:
    """Return the description of a session."""
    memberships = [
        WorkspaceRoles(
            id=membership.workspace_id,
            name=membership.workspace_name,
            is_default=membership.is_default,
            roles=list(membership.roles),
        )
        for membership in user.memberships
    ]
    described = SignedInUser(
        id=user.id,
        email=user.email,
        first_name=user.first_name,
        last_name=user.last_name,
        organization=OrganizationName(id=user.organization_id, name=user.organization_name),
        roles=list(user.roles),
        workspaces=memberships,
    )
    body = SessionAnswer(user=described, expires_at=user.expires_at).to_json()
    return unstored(Response(body, media_type="application/json"))


def unstored(response: Response) -> Response:
    """Keep a response out of every cache."""
    response.headers["cache-control"] = "no-store"
    return response


def _without_input(item: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in item.items() if name != "input"}
