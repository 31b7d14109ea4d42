"""Users: people of an organisation, and what of theirs ends when they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import IntegrityError

from mezzo.accounts import audit, keys
from mezzo.accounts.audit import Actor
from mezzo.accounts.errors import Conflict
from mezzo.accounts.members import Membership, delete_member, insert_member, memberships_of
from mezzo.accounts.roles import ORGANIZATION_ROLES
from mezzo.accounts.scope import find_default_workspace, require_user
from mezzo.accounts.sessions import end_sessions_of
from mezzo.accounts.text import check_email, check_text
from mezzo.kit.ids import new_uuid
from mezzo.store.tables import users, workspace_members

# Who has only these has no use for a workspace.
_ROLES_WITHOUT_PRODUCTS = frozenset({"billing_manager"})


@dataclass(frozen=True, slots=True)
class User:
    """Somebody of an organisation.

    roles                names of organisation roles, strongest first
    subscription_types   product seats; kept for clients, without effect here
    oidc_subject         who they are to the identity provider, None if they never signed in by it
    has_password         whether they can sign in with one
    """

    id: str
    organization_id: str
    email: str
    first_name: str
    last_name: str
    roles: tuple[str, ...]
    subscription_types: tuple[str, ...]
    oidc_subject: str | None
    has_password: bool
    created_at: datetime
    memberships: tuple[Membership, ...]


@dataclass(frozen=True, slots=True)
class OidcIdentity:
    """Who somebody is to an identity provider."""

    issuer: str
    subject: str


def create_user(
    connection: Connection,
    *,
    organization_id: str,
    email: str,
    first_name: str,
    last_name: str,
    actor: Actor | None,
    now: datetime,
    roles: Sequence[str] | None = None,
    subscription_types: Sequence[str] = (),
    password_hash: str | None = None,
    identity: OidcIdentity | None = None,
) -> User:
    """Make a user, who is a member of the default workspace unless billing is all that they are for.

    actor: the new user if None, who came by invitation or single sign-on.
    Raises: Conflict if the address, or the identity, is a user's; Unacceptable.
    """
    address = check_email(email)
    user_id = new_uuid()
    actor = actor or Actor("HUMAN", user_id, {"email": address})
    chosen = tuple(roles or (ORGANIZATION_ROLES.default,))
    if find_user_by_email(connection, organization_id, address) is not None:
        raise Conflict(f"{address} is a member of the organization already")
    row = {
        "id": user_id,
        "organization_id": organization_id,
        "email": address,
        "first_name": check_text(first_name, param="first_name"),
        "last_name": check_text(last_name, param="last_name"),
        "roles": list(chosen),
        "subscription_types": list(dict.fromkeys(subscription_types)),
        "password_hash": password_hash,
        "oidc_issuer": identity and identity.issuer,
        "oidc_subject": identity and identity.subject,
        "created_at": now,
    }
    try:
        connection.execute(sa.insert(users).values(row))
    except IntegrityError:
        # The identity is taken, or somebody made the same user in this moment.
        raise Conflict(f"{address} is a member of the organization already") from None
    audit.record(
        connection,
        actor,
        "user.create",
        "USER",
        {"uuid": user_id, "email": address},
        event={"roles": " ".join(chosen)},
        organization_id=organization_id,
        now=now,
    )
    if not _ROLES_WITHOUT_PRODUCTS.issuperset(chosen):
        default = find_default_workspace(connection, organization_id)
        if default is not None:
            insert_member(connection, organization_id, default, user_id, None, actor, now)
    return find_user(connection, organization_id, user_id)


def update_user(
    connection: Connection,
    *,
    organization_id: str,
    user_id: str,
    actor: Actor,
    now: datetime,
    roles: Sequence[str] | None = None,
    subscription_types: Sequence[str] | None = None,
) -> User:
    """Change roles or seats; None leaves them. Raises: NotThere."""
    old = require_user(connection, organization_id, user_id, lock="exclusive")
    new_values = {
        name: list(dict.fromkeys(value))
        for name, value in (("roles", roles), ("subscription_types", subscription_types))
        if value is not None and list(value) != getattr(old, name)
    }
    if new_values:
        connection.execute(sa.update(users).where(users.c.id == user_id).values(new_values))
        audit.record(
            connection,
            actor,
            "user.organization.role.update",
            "USER",
            {"uuid": user_id, "email": old.email},
            event={
                **{f"old_{name}": " ".join(getattr(old, name)) for name in new_values},
                **{f"new_{name}": " ".join(value) for name, value in new_values.items()},
            },
            organization_id=organization_id,
            now=now,
        )
    return find_user(connection, organization_id, user_id)


def set_password(
    connection: Connection,
    *,
    organization_id: str,
    user_id: str,
    password_hash: str,
    actor: Actor,
    now: datetime,
    keep_session: str | None = None,
) -> None:
    """Give a user another password, and end all their sessions.

    keep_session: the secret of one that goes on, in which they do it themselves. Raises: NotThere.
    """
    user = require_user(connection, organization_id, user_id, lock="exclusive")
    connection.execute(sa.update(users).where(users.c.id == user_id).values(password_hash=password_hash))
    end_sessions_of(connection, user_id, keep=keep_session)
    audit.record(
        connection,
        actor,
        "user.password.update",
        "USER",
        {"uuid": user_id, "email": user.email},
        organization_id=organization_id,
        now=now,
    )


def remove_user(
    connection: Connection, *, organization_id: str, user_id: str, actor: Actor, now: datetime
) -> None:
    """Take a user out of the organisation: keys are revoked, sessions end, memberships in workspaces too.

    Raises: NotThere.
    """
    user = require_user(connection, organization_id, user_id, lock="exclusive")
    for key in keys.list_keys(connection, organization_id, user_id=user_id):
        keys.revoke_key(connection, organization_id=organization_id, key_id=key.id, actor=actor, now=now)
    joined = connection.scalars(
        sa.select(workspace_members.c.workspace_id).where(workspace_members.c.user_id == user_id)
    ).all()
    for workspace_id in joined:
        delete_member(connection, organization_id, workspace_id, user_id, actor, now)
    end_sessions_of(connection, user_id)
    connection.execute(sa.update(users).where(users.c.id == user_id).values(deleted_at=now))
    audit.record(
        connection,
        actor,
        "user.delete",
        "USER",
        {"uuid": user_id, "email": user.email},
        organization_id=organization_id,
        now=now,
    )


def find_user(connection: Connection, organization_id: str, user_id: str) -> User:
    """Return a user who has not left. Raises: NotThere."""
    row = require_user(connection, organization_id, user_id)
    return _user(row, memberships_of(connection, [user_id])[user_id])


def find_user_by_email(connection: Connection, organization_id: str, email: str) -> User | None:
    """Return the user with an address, None if nobody has it."""
    found = connection.execute(
        sa.select(users).where(_present(organization_id), users.c.email == email.strip().lower())
    ).one_or_none()
    return None if found is None else _user(found, memberships_of(connection, [found.id])[found.id])


def list_users(
    connection: Connection,
    organization_id: str,
    *,
    email: str | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> Sequence[User]:
    """Return users, oldest first. email: a part of the address."""
    rows = connection.execute(
        sa.select(users)
        .where(_matching(organization_id, email))
        .order_by(users.c.created_at, users.c.id)
        .limit(limit)
        .offset(offset)
    ).all()
    memberships = memberships_of(connection, [row.id for row in rows])
    return [_user(row, memberships[row.id]) for row in rows]


def count_users(connection: Connection, organization_id: str, *, email: str | None = None) -> int:
    """Return how many users `list_users` would return."""
    query = sa.select(sa.func.count()).select_from(users).where(_matching(organization_id, email))
    return connection.execute(query).scalar_one()


def _present(organization_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(users.c.organization_id == organization_id, users.c.deleted_at.is_(None))


def _matching(organization_id: str, email: str | None) -> sa.ColumnElement[bool]:
    if not email:
        return _present(organization_id)
    return sa.and_(_present(organization_id), users.c.email.icontains(email, autoescape=True))


def _user(row: Row[Any], memberships: Sequence[Membership]) -> User:
    return User(
        id=row.id,
        organization_id=row.organization_id,
        email=row.email,
        first_name=row.first_name,
        last_name=row.last_name,
        roles=tuple(row.roles),
        subscription_types=tuple(row.subscription_types),
        oidc_subject=row.oidc_subject,
        has_password=row.password_hash is not None,
        created_at=row.created_at,
        memberships=tuple(memberships),
    )
