"""What a key may do, as the server needs it for each request: one query, remembered for a fraction of a second.

A key that is revoked is refused everywhere within `MAX_AGE_S`, because no server trusts what it remembers for
longer; the server that revoked it forgets it at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.accounts.keys import KeyKind
from mezzo.kit.secrets import hash_secret
from mezzo.store.database import Database
from mezzo.store.tables import api_keys, organizations, rate_limits, workspaces

MAX_AGE_S = 0.5
_MAX_REMEMBERED = 10_000
EVERY_MODEL = "*"

Scope = Literal["organization", "workspace", "api_key"]


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Most requests and tokens of one model; None where there is no limit, 0 where nothing is allowed."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_month: int | None = None


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """Most that a month may cost for an organisation, workspace or key, in nano-units."""

    scope: Scope
    scope_id: str
    limit: int


@dataclass(frozen=True, slots=True)
class Access:
    """Who a good key stands for, and within which limits.

    label           the key as people may see it, e.g. `mz-…wxyz`
    workspace_id    None for admin keys
    has_priority    requests with `service_tier: auto` are served at the priority tier
    rate_limits     those that an administrator set, by model id or EVERY_MODEL
    """

    key_id: str
    label: str
    kind: KeyKind
    organization_id: str
    workspace_id: str | None
    user_id: str | None
    expires_at: datetime | None
    has_priority: bool = False
    spend_limits: tuple[SpendLimit, ...] = ()
    rate_limits: Mapping[str, RateLimits] = field(default_factory=dict)

    @property
    def workspace(self) -> str:
        """The workspace of a key that has one: requests are never made with an admin key."""
        assert self.workspace_id is not None, "an admin key belongs to no workspace"
        return self.workspace_id

    def rate_limits_of(self, model_id: str, default: RateLimits) -> RateLimits:
        """Return the limits of a model: its own, those of every model, or `default`."""
        return self.rate_limits.get(model_id) or self.rate_limits.get(EVERY_MODEL) or default


def load_access(connection: Connection, secret_hash: str) -> Access | None:
    """Return what the key with this hash may do; None if nobody has it, it was revoked, or its workspace archived."""
    row = connection.execute(
        sa.select(
            api_keys.c.id,
            api_keys.c.hidden,
            api_keys.c.kind,
            api_keys.c.organization_id,
            api_keys.c.workspace_id,
            api_keys.c.user_id,
            api_keys.c.expires_at,
            api_keys.c.monthly_limit,
            workspaces.c.has_priority,
            workspaces.c.monthly_limit.label("workspace_limit"),
            organizations.c.monthly_limit.label("organization_limit"),
        )
        .select_from(
            api_keys.join(organizations, organizations.c.id == api_keys.c.organization_id).outerjoin(
                workspaces, workspaces.c.id == api_keys.c.workspace_id
            )
        )
        .where(
            api_keys.c.secret_hash == secret_hash,
            api_keys.c.revoked_at.is_(None),
            workspaces.c.archived_at.is_(None),
        )
    ).one_or_none()
    if row is None:
        return None
    limits: list[tuple[Scope, str, int | None]] = [
        ("organization", row.organization_id, row.organization_limit),
        ("workspace", row.workspace_id, row.workspace_limit),
        ("api_key", row.id, row.monthly_limit),
    ]
    return Access(
        key_id=row.id,
        label=row.hidden,
        kind=row.kind,
        organization_id=row.organization_id,
        workspace_id=row.workspace_id,
        user_id=row.user_id,
        expires_at=row.expires_at,
        has_priority=bool(row.has_priority),
        spend_limits=tuple(
            SpendLimit(scope, scope_id, limit) for scope, scope_id, limit in limits if limit is not None
        ),
        rate_limits=load_rate_limits(connection, row.workspace_id),
    )


def load_rate_limits(connection: Connection, workspace_id: str | None) -> dict[str, RateLimits]:
    """Return the limits that an administrator set for a workspace, by model id or EVERY_MODEL."""
    if workspace_id is None:
        return {}
    rows = connection.execute(sa.select(rate_limits).where(rate_limits.c.workspace_id == workspace_id))
    return {
        row.model_id: RateLimits(row.requests_per_minute, row.tokens_per_minute, row.tokens_per_month)
        for row in rows
    }


class AccessCache:
    """Knows which keys are good. For one event loop; the database is read in a thread.

    clock: the time of day, against which keys expire. What is remembered is measured on a clock that never jumps.
    """

    def __init__(
        self, database: Database, clock: Callable[[], datetime], *, max_age_s: float = MAX_AGE_S
    ) -> None:
        self._database = database
        self._clock = clock
        self._max_age_s = max_age_s
        # Least recently loaded first. Unknown keys are not remembered: guesses must not push good ones out.
        self._remembered: OrderedDict[str, tuple[float, Access]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Access | None]] = {}

    async def find(self, secret: str) -> Access | None:
        """Return what a key may do, None if it is not good now. Raises: sqlalchemy's errors if the database is down."""
        secret_hash = hash_secret(secret)
        known = self._remembered.get(secret_hash)
        age_s = math.inf if known is None else time.monotonic() - known[0]
        if known is not None and age_s < self._max_age_s:
            access: Access | None = known[1]
            if age_s > self._max_age_s / 2:
                self._begin_to_load(secret_hash)  # so that a key in steady use is never waited for
        else:
            access = await asyncio.shield(self._begin_to_load(secret_hash))
        if access is None or (access.expires_at is not None and access.expires_at <= self._clock()):
            return None
        return access

    def forget(self) -> None:
        """Read everything anew: something was changed."""
        self._remembered.clear()
        self._loading.clear()

    def _begin_to_load(self, secret_hash: str) -> asyncio.Task[Access | None]:
        """Load once for all requests that ask at the same time."""
        task = self._loading.get(secret_hash)
        if task is None:
            task = asyncio.create_task(self._read(secret_hash))
            task.add_done_callback(_see_failure)
            self._loading[secret_hash] = task
        return task

    async def _read(self, secret_hash: str) -> Access | None:
        task = asyncio.current_task()
        try:
            # The moment before the read: what changes during it is seen the next time.
            asked_s = time.monotonic()
            access = await asyncio.to_thread(self._query, secret_hash)
            if self._loading.get(secret_hash) is task:
                self._remember(secret_hash, asked_s, access)
            return access
        finally:
            if self._loading.get(secret_hash) is task:
                del self._loading[secret_hash]

    def _query(self, secret_hash: str) -> Access | None:
        with self._database.read() as connection:
            return load_access(connection, secret_hash)

    def _remember(self, secret_hash: str, asked_s: float, access: Access | None) -> None:
        self._remembered.pop(secret_hash, None)
        if access is not None:
            self._remembered[secret_hash] = (asked_s, access)
            if len(self._remembered) > _MAX_REMEMBERED:
                self._remembered.popitem(last=False)


def _see_failure(task: asyncio.Task[Access | None]) -> None:
    """Whoever waits for a load hears of its failure; what nobody waited for is loaded again when it is needed."""
    if not task.cancelled():
        task.exception()
