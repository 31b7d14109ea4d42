"""API keys: made, listed, limited, revoked. A secret is shown once and kept as a hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from mezzo.accounts import audit
from mezzo.accounts.audit import Actor
from mezzo.accounts.errors import Conflict, NotThere, Unacceptable
from mezzo.accounts.scope import require_user, require_workspace
from mezzo.accounts.text import check_text
from mezzo.kit.ids import new_uuid
from mezzo.kit.secrets import hash_secret, mask, new_admin_key, new_api_key
from mezzo.store.tables import api_keys, workspaces

KeyKind = Literal["api", "admin"]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, without its secret.

    hidden           as people may see it, e.g. `mz-…9fQz`
    monthly_limit    most that a month of its requests may cost, in nano-units; None for no limit
    expires_at       the first moment at which it is no longer good
    workspace_name   None for admin keys
    """

    id: str
    kind: KeyKind
    organization_id: str
    workspace_id: str | None
    workspace_name: str | None
    user_id: str | None
    name: str | None
    hidden: str
    monthly_limit: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def create_key(
    connection: Connection,
    *,
    organization_id: str,
    workspace_id: str,
    user_id: str | None,
    actor: Actor,
    now: datetime,
    name: str | None = None,
    expiration: date | None = None,
    monthly_limit: int | None = None,
) -> tuple[ApiKey, str]:
    """Make a key of a workspace and return it with its secret, which nobody can read again.

    expiration: the last day, in UTC, on which it is good.
    Raises: NotThere for a workspace or user of another organisation; Unacceptable.
    """
    require_workspace(connection, organization_id, workspace_id, lock="shared")
    if user_id is not None:
        require_user(connection, organization_id, user_id, lock="shared")
    secret = new_api_key()
    key = insert_key(
        connection,
        secret,
        kind="api",
        organization_id=organization_id,
        workspace_id=workspace_id,
        user_id=user_id,
        name=name,
        expires_at=end_of(expiration, now),
        monthly_limit=monthly_limit,
        actor=actor,
        now=now,
    )
    return key, secret


def create_admin_key(
    connection: Connection,
    *,
    organization_id: str,
    actor: Actor,
    now: datetime,
    name: str | None = None,
    expiration: date | None = None,
) -> tuple[ApiKey, str]:
    """Make a key for the admin API of an organisation and return it with its secret. Raises: Unacceptable."""
    secret = new_admin_key()
    key = insert_key(
        connection,
        secret,
        kind="admin",
        organization_id=organization_id,
        workspace_id=None,
        user_id=None,
        name=name,
        expires_at=end_of(expiration, now),
        actor=actor,
        now=now,
    )
    return key, secret


def insert_key(
    connection: Connection,
    secret: str,
    *,
    kind: KeyKind,
    organization_id: str,
    workspace_id: str | None,
    user_id: str | None,
    name: str | None,
    actor: Actor,
    now: datetime,
    expires_at: datetime | None = None,
    monthly_limit: int | None = None,
) -> ApiKey:
    """Write a key whose secret is given. Raises: Unacceptable for a name that cannot be kept, or a limit below zero."""
    if name is not None:
        check_text(name, param="name", may_be_empty=True)
    if monthly_limit is not None and monthly_limit < 0:
        raise Unacceptable("a limit is not negative", param="monthly_limit")
    key_id = new_uuid()
    connection.execute(
        sa.insert(api_keys).values(
            id=key_id,
            kind=kind,
            organization_id=organization_id,
            workspace_id=workspace_id,
            user_id=user_id,
            name=name,
            secret_hash=hash_secret(secret),
            hidden=mask(secret),
            monthly_limit=monthly_limit,
            created_at=now,
            expires_at=expires_at,
        )
    )
    audit.record(
        connection,
        actor,
        "api_key.create" if kind == "api" else "admin_api_key.created",
        "API_KEY" if kind == "api" else "ADMIN_API_KEY",
        {"uuid": key_id, "name": name or "", "hidden_key": mask(secret)},
        organization_id=organization_id,
        workspace_id=workspace_id,
        now=now,
    )
    return find_key(connection, organization_id, key_id)


def revoke_key(
    connection: Connection,
    *,
    organization_id: str,
    key_id: str,
    actor: Actor,
    now: datetime,
    kind: KeyKind | None = None,
) -> ApiKey:
    """Make a key useless from now on.

    kind: of which it must be. Raises: NotThere, also for one that was revoked before.
    """
    key = find_key(connection, organization_id, key_id)
    # The condition is for two who revoke at once: the second one finds nothing to change.
    revoked = connection.execute(
        sa.update(api_keys)
        .where(
            api_keys.c.id == key_id, api_keys.c.kind == (kind or key.kind), api_keys.c.revoked_at.is_(None)
        )
        .values(revoked_at=now)
    )
    if revoked.rowcount == 0:
        raise NotThere(f"API key {key_id} not found")
    audit.record(
        connection,
        actor,
        "api_key.delete" if key.kind == "api" else "admin_api_key.delete",
        "API_KEY" if key.kind == "api" else "ADMIN_API_KEY",
        {"uuid": key_id, "name": key.name or "", "hidden_key": key.hidden},
        organization_id=organization_id,
        workspace_id=key.workspace_id,
        now=now,
    )
    return find_key(connection, organization_id, key_id)


def set_key_limit(
    connection: Connection,
    *,
    organization_id: str,
    key_id: str,
    monthly_limit: int | None,
    actor: Actor,
    now: datetime,
) -> ApiKey:
    """Set the most that a month of a key's requests may cost, in nano-units.

    Raises: NotThere; Conflict for an admin key; Unacceptable.
    """
    if monthly_limit is not None and monthly_limit < 0:
        raise Unacceptable("a limit is not negative", param="monthly_limit")
    key = find_key(connection, organization_id, key_id)
    if key.kind == "admin":
        raise Conflict("an admin key makes no requests that cost")
    connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(monthly_limit=monthly_limit))
    audit.record(
        connection,
        actor,
        "billing.monthly_limit.updated",
        "API_KEY",
        {"uuid": key_id, "name": key.name or "", "hidden_key": key.hidden},
        event={"old": str(key.monthly_limit), "new": str(monthly_limit), "unit": "nano"},
        organization_id=organization_id,
        workspace_id=key.workspace_id,
        now=now,
    )
    return find_key(connection, organization_id, key_id)


def find_key(connection: Connection, organization_id: str, key_id: str) -> ApiKey:
    """Return a key of an organisation, revoked ones too. Raises: NotThere."""
    query = _select().where(api_keys.c.id == key_id, api_keys.c.organization_id == organization_id)
    # PostgreSQL has no text with a NUL in it, and would fail.
    row = None if "\0" in key_id else connection.execute(query).one_or_none()
    if row is None:
        raise NotThere(f"API key {key_id} not found")
    return _key(row)


def list_keys(
    connection: Connection,
    organization_id: str,
    *,
    kind: KeyKind = "api",
    name: str | None = None,
    user_id: str | None = None,
    workspace_id: str | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> Sequence[ApiKey]:
    """Return the keys that are not revoked, oldest first.

    name: a part of the name, or the end of what is shown of the key. user_id, workspace_id: whose.
    """
    query = _select().where(
        api_keys.c.organization_id == organization_id,
        api_keys.c.kind == kind,
        api_keys.c.revoked_at.is_(None),
    )
    if user_id is not None:
        query = query.where(api_keys.c.user_id == user_id)
    if workspace_id is not None:
        query = query.where(api_keys.c.workspace_id == workspace_id)
    if name:
        query = query.where(
            sa.or_(
                api_keys.c.name.icontains(name, autoescape=True),
                api_keys.c.hidden.endswith(name, autoescape=True),
            )
        )
    rows = connection.execute(
        query.order_by(api_keys.c.created_at, api_keys.c.id).limit(limit).offset(offset)
    )
    return [_key(row) for row in rows]


def end_of(expiration: date | None, now: datetime) -> datetime | None:
    """Return the end of a day in UTC. Raises: Unacceptable if it has passed."""
    if expiration is None:
        return None
    if expiration == date.max:
        raise Unacceptable("the expiration date is the last there is", param="expiration")
    end = datetime.combine(expiration, time(), UTC) + timedelta(days=1)
    if end <= now:
        raise Unacceptable("the expiration date has passed", param="expiration")
    return end


def _select() -> sa.Select[tuple[object, ...]]:
    columns = [column for column in api_keys.c if column.name != "secret_hash"]
    return sa.select(*columns, workspaces.c.name.label("workspace_name")).select_from(
        api_keys.outerjoin(workspaces, workspaces.c.id == api_keys.c.workspace_id)
    )


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(**row._mapping)
