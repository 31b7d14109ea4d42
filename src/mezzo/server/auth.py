"""Who is calling: bearer tokens against the keys that the accounts know."""

from __future__ import annotations

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request

from mezzo.accounts.access import Access, AccessCache
from mezzo.protocol.errors import Forbidden, ServiceUnavailable, Unauthorized
from mezzo.server.exchange import exchange_of
from mezzo.store.group_commit import reason

_log = structlog.get_logger("mezzo.server")


async def authenticate(request: Request, access: AccessCache) -> Access:
    """Return what the sender of a request may do in its workspace, and note it in the exchange.

    Raises: Unauthorized, `Unauthorized` without a bearer token and `Invalid API Key` for one nobody has; Forbidden for
    an admin key; ServiceUnavailable.
    """
    exchange = exchange_of(request)
    with exchange.timed("auth"):
        found = await find_access(bearer_token(request), access)
    exchange.caller, exchange.workspace_id = found.label, found.workspace_id
    if found.kind == "admin":
        raise Forbidden("An admin key is for the admin API only")
    return found


async def find_access(key: str | None, access: AccessCache) -> Access:
    """Return what a key may do. Raises: Unauthorized, ServiceUnavailable."""
    if key is None:
        raise Unauthorized("Unauthorized")
    try:
        found = await access.find(key)
    except SQLAlchemyError as fault:
        _log.error("keys cannot be read", reason=reason(fault))
        raise ServiceUnavailable from None
    if found is None:
        raise Unauthorized("Invalid API Key")
    return found


def bearer_token(request: Request) -> str | None:
    """Return the token of a request's one Authorization header, None if there is no such thing."""
    values = request.headers.getlist("authorization")
    if len(values) != 1:
        return None
    scheme, _, key = values[0].partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None
