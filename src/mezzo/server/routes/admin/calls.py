"""What every endpoint of the admin API does: who asks, one transaction in a thread, the answer in JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import structlog
from pydantic import BaseModel
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.requests import Request
from starlette.responses import Response

from mezzo.accounts.access import Access, AccessCache
from mezzo.accounts.audit import Actor
from mezzo.accounts.errors import AccountsError, Conflict
from mezzo.metering.idempotency import AnswerSeal, Claim, KeptAnswer, KeyReused, find_answer, keep, take
from mezzo.protocol.admin.answers import Answer
from mezzo.protocol.errors import Forbidden, IdempotencyConflict, ServiceUnavailable
from mezzo.protocol.parse import parse_query
from mezzo.server.auth import bearer_token, find_access
from mezzo.server.errors import accounts_error
from mezzo.server.exchange import exchange_of
from mezzo.server.incoming import parse, read_body
from mezzo.server.retries import claim_of, replay
from mezzo.store.database import Database
from mezzo.store.group_commit import reason

KEY_HEADER = "x-api-key"
_JSON = "application/json"
MAX_BODY_BYTES = 2 * 1024 * 1024

_log = structlog.get_logger("mezzo.server")

_M = TypeVar("_M", bound=BaseModel)
_T = TypeVar("_T")

Make = Callable[[Connection, "Admin", _M, datetime], Answer]
"""Makes what a body asks for, in a transaction, and returns what the answer says."""


@dataclass(frozen=True, slots=True)
class Admin:
    """Whose admin key a request has, as those who make changes see it."""

    organization_id: str
    actor: Actor


def admin_authentication(access: AccessCache) -> Callable[[Request], Awaitable[Access]]:
    """Return what tells whose admin key a request has.

    It raises Unauthorized without a key and for one that nobody has, Forbidden for a key of a workspace,
    ServiceUnavailable if keys cannot be read.
    """

    async def authenticate(request: Request) -> Access:
        found = await find_access(_key_of(request), access)
        exchange_of(request).caller = found.label
        if found.kind != "admin":
            raise Forbidden("This endpoint needs an admin API key")
        return found

    return authenticate


def _key_of(request: Request) -> str | None:
    """Return the key in `x-api-key` or `Authorization: Bearer`; None for none, and for two that differ."""
    keys = {value.strip() for value in request.headers.getlist(KEY_HEADER)}
    if "authorization" in request.headers:
        keys.add(bearer_token(request) or "")
    return keys.pop() or None if len(keys) == 1 else None


class AdminCalls:
    """The collaborators of the endpoints, and what they all do with them."""

    def __init__(
        self, database: Database, access: AccessCache, seal: AnswerSeal, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._seal = seal
        self._access = access
        self._clock = clock
        self._authenticate = admin_authentication(access)

    async def admin(self, request: Request) -> Admin:
        """Return who asks. Raises: Unauthorized, Forbidden, ServiceUnavailable."""
        access = await self._authenticate(request)
        metadata = {"uuid": access.key_id, "hidden_key": access.label}
        return Admin(access.organization_id, Actor("API_KEY", access.user_id, metadata))

    async def make(self, request: Request, model: type[_M], work: Make[_M]) -> Response:
        """Return the answer of a call that makes something; with an `Idempotency-Key` it is made once.

        Raises: as `admin`, `body_of` and `change`; InvalidArguments, IdempotencyConflict for a key.
        """
        admin = await self.admin(request)
        raw = await read_body(request, max_bytes=MAX_BODY_BYTES)
        body = await parse(model, raw)
        claim = claim_of(request, admin.organization_id, raw)
        request_id = exchange_of(request).request_id

        def once(connection: Connection, now: datetime) -> Response:
            kept = None if claim is None else self._take(connection, claim, request_id, now)
            if kept is not None:
                return replay(kept)
            made = KeptAnswer(200, {"content-type": _JSON}, work(connection, admin, body, now).to_json())
            if claim is not None:
                keep(connection, request_id, self._seal.seal(made))
            return Response(made.body, media_type=_JSON)

        return await self.change(once)

    def _take(
        self, connection: Connection, claim: Claim, request_id: str, now: datetime
    ) -> KeptAnswer | None:
        """Claim a key, or return the answer of the call that holds it: that call is over, or this one waited for it."""
        if take(connection, self._database, claim, request_id=request_id, server_id="", now=now):
            return None
        try:
            sealed = find_answer(connection, claim, now)
        except KeyReused:
            raise IdempotencyConflict("This Idempotency-Key was used with another request") from None
        assert sealed is not None, "claim and answer are written in one transaction"
        return self._seal.open(sealed)

    async def read(self, work: Callable[[Connection, datetime], _T]) -> _T:
        """Run `work` on one state of the database, in a thread, with the time. Raises: ServiceUnavailable."""
        return await self._run(self._database.read, work)

    async def change(self, work: Callable[[Connection, datetime], _T]) -> _T:
        """Run `work` in one transaction, in a thread; what keys may do is read anew afterwards.

        Raises: what `work` raises; Conflict if somebody else changed the same at the same time; ServiceUnavailable.
        """
        try:
            return await self._run(self._database.write, work)
        except IntegrityError:
            raise Conflict("somebody else changed the same at the same time; try again") from None
        finally:
            self._access.forget()

    async def _run(
        self,
        transaction: Callable[[], AbstractContextManager[Connection]],
        work: Callable[[Connection, datetime], _T],
    ) -> _T:
        def run() -> _T:
            with transaction() as connection:
                return work(connection, self._clock())

        try:
            return await asyncio.to_thread(run)
        except OperationalError as fault:
            _log.error("the database does not answer", reason=reason(fault))
            raise ServiceUnavailable from None


async def body_of(request: Request, model: type[_M]) -> _M:
    """Return the body of a request. Raises: RequestInvalid, PayloadTooLarge, UploadTimeout."""
    return await parse(model, await read_body(request, max_bytes=MAX_BODY_BYTES))


def query_of(request: Request, model: type[_M]) -> _M:
    """Return what stands after the `?`. Raises: RequestInvalid."""
    return parse_query(model, request.query_params.multi_items())


def id_of(request: Request, name: str) -> str:
    """Return an id from the path, in its usual form."""
    text: str = request.path_params[name]
    return text.lower()


@contextmanager
def blaming(*where: str | int) -> Iterator[None]:
    """Name the part of the body that is to blame for what accounts refuse inside."""
    try:
        yield
    except AccountsError as error:
        raise accounts_error(error, *where) from None


def answer(body: Answer) -> Response:
    """Return a 200 with a body."""
    return Response(body.to_json(), media_type=_JSON)
