"""Sessions: who is signed in, known by a secret in a cookie. The secret is kept as a hash and ends at a fixed time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.accounts.members import Membership, memberships_of
from mezzo.kit.secrets import hash_secret, new_secret
from mezzo.store.tables import organizations, sessions, users


@dataclass(frozen=True, slots=True)
class SessionUser:
    """Who a session stands for, as they are now.

    roles         in the organisation
    memberships   in workspaces that are not archived
    expires_at    when the session ends, whatever happens in it
    """

    id: str
    email: str
    first_name: str
    last_name: str
    organization_id: str
    organization_name: str
    roles: tuple[str, ...]
    memberships: tuple[Membership, ...]
    expires_at: datetime


def create_session(connection: Connection, user_id: str, *, now: datetime, lifetime: timedelta) -> str:
    """Begin a session and return its secret, which nobody can read again. Forgets sessions of anybody that ended."""
    connection.execute(sa.delete(sessions).where(sessions.c.expires_at <= now))
    secret = new_secret()
    connection.execute(
        sa.insert(sessions).values(
            secret_hash=hash_secret(secret), user_id=user_id, created_at=now, expires_at=now + lifetime
        )
    )
    return secret


def find_session(connection: Connection, secret: str, now: datetime) -> SessionUser | None:
    """Return whose session has this secret; None if it ended, or they were deleted."""
    row = connection.execute(
        sa.select(
            users.c.id,
            users.c.email,
            users.c.first_name,
            users.c.last_name,
            users.c.organization_id,
            users.c.roles,
            organizations.c.name.label("organization_name"),
            sessions.c.expires_at,
        )
        .select_from(
            sessions.join(users, users.c.id == sessions.c.user_id).join(
                organizations, organizations.c.id == users.c.organization_id
            )
        )
        .where(
            sessions.c.secret_hash == hash_secret(secret),
            sessions.c.expires_at > now,
            users.c.deleted_at.is_(None),
        )
    ).one_or_none()
    if row is None:
        return None
    return SessionUser(
        id=row.id,
        email=row.email,
        first_name=row.first_name,
        last_name=row.last_name,
        organization_id=row.organization_id,
        organization_name=row.organization_name,
        roles=tuple(row.roles),
        memberships=tuple(memberships_of(connection, [row.id])[row.id]),
        expires_at=row.expires_at,
    )


def end_session(connection: Connection, secret: str) -> None:
    """End the session with this secret, if there is one."""
    connection.execute(sa.delete(sessions).where(sessions.c.secret_hash == hash_secret(secret)))


def end_sessions_of(connection: Connection, user_id: str, *, keep: str | None = None) -> None:
    """End every session of a user, except the one with the secret `keep`."""
    query = sa.delete(sessions).where(sessions.c.user_id == user_id)
    if keep is not None:
        query = query.where(sessions.c.secret_hash != hash_secret(keep))
    connection.execute(query)
