"""Invitations: who may join an organisation, for how long, and what happens when they do.

Whoever holds the secret of an invitation's link joins with it; whoever proves by single sign-on that the invited
address is theirs joins without. The secret is shown once and kept as a hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from mezzo.accounts import audit
from mezzo.accounts.audit import Actor
from mezzo.accounts.errors import Conflict, NotThere
from mezzo.accounts.members import insert_member
from mezzo.accounts.roles import ORGANIZATION_ROLES
from mezzo.accounts.scope import is_open, require_invitation, require_workspace
from mezzo.accounts.text import check_email
from mezzo.accounts.users import OidcIdentity, User, create_user, find_user, find_user_by_email
from mezzo.kit.ids import new_uuid
from mezzo.kit.secrets import hash_secret, new_secret
from mezzo.store.tables import invitations, workspaces

LIFETIME = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Invitation:
    """One that was neither accepted nor revoked, without its secret; it may have expired."""

    id: str
    organization_id: str
    email: str
    roles: tuple[str, ...]
    subscription_types: tuple[str, ...]
    workspace_ids: tuple[str, ...]
    language: str
    created_at: datetime
    expires_at: datetime


def invite(
    connection: Connection,
    *,
    organization_id: str,
    email: str,
    actor: Actor,
    now: datetime,
    roles: Sequence[str] | None = None,
    subscription_types: Sequence[str] = (),
    workspace_ids: Sequence[str] = (),
    language: str = "en",
) -> tuple[Invitation, str]:
    """Invite an address and return the invitation with its secret; an open one to the same address is revoked.

    workspace_ids: those to join beside the default one. language: of the letter, for whoever sends it.
    Raises: NotThere for a workspace; Conflict if the address is a member's; Unacceptable.
    """
    address = check_email(email)
    for workspace_id in sorted(set(workspace_ids)):
        require_workspace(connection, organization_id, workspace_id, lock="shared")
    if find_user_by_email(connection, organization_id, address) is not None:
        raise Conflict(f"{address} is a member of the organization already")
    for earlier in _open_ones(connection, organization_id, address):
        revoke_invitation(
            connection, organization_id=organization_id, invitation_id=earlier.id, actor=actor, now=now
        )
    secret, invitation_id = new_secret(), new_uuid()
    chosen = tuple(roles or (ORGANIZATION_ROLES.default,))
    connection.execute(
        sa.insert(invitations).values(
            id=invitation_id,
            organization_id=organization_id,
            email=address,
            roles=list(chosen),
            subscription_types=list(dict.fromkeys(subscription_types)),
            workspace_ids=list(dict.fromkeys(workspace_ids)),
            language=language,
            secret_hash=hash_secret(secret),
            created_at=now,
            expires_at=now + LIFETIME,
        )
    )
    invitation = _invitation(require_invitation(connection, organization_id, invitation_id))
    _record(connection, actor, "organization.invite.send", invitation, now)
    return invitation, secret


def revoke_invitation(
    connection: Connection, *, organization_id: str, invitation_id: str, actor: Actor, now: datetime
) -> None:
    """Take an invitation back. Raises: NotThere, also for one that was accepted or revoked."""
    row = require_invitation(connection, organization_id, invitation_id, lock="exclusive")
    connection.execute(sa.update(invitations).where(invitations.c.id == invitation_id).values(revoked_at=now))
    _record(connection, actor, "organization.invite.revoked", _invitation(row), now)


def list_invitations(
    connection: Connection,
    organization_id: str,
    *,
    email: str | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> Sequence[Invitation]:
    """Return the invitations that were neither accepted nor revoked, oldest first. email: a part of the address."""
    rows = connection.execute(
        sa.select(invitations)
        .where(_matching(organization_id, email))
        .order_by(invitations.c.created_at, invitations.c.id)
        .limit(limit)
        .offset(offset)
    )
    return [_invitation(row) for row in rows]


def count_invitations(connection: Connection, organization_id: str, *, email: str | None = None) -> int:
    """Return how many `list_invitations` would return."""
    query = sa.select(sa.func.count()).select_from(invitations).where(_matching(organization_id, email))
    return connection.execute(query).scalar_one()


def accept_invitation(
    connection: Connection,
    secret: str,
    first_name: str,
    last_name: str,
    password_hash: str | None,
    now: datetime,
) -> User:
    """Make the user who was invited, and add them to the workspaces of the invitation that are not archived.

    Raises: NotThere for a secret that nobody has, or whose invitation expired, was revoked or accepted; Conflict if the
    address became a member's meanwhile; Unacceptable for names.
    """
    row = connection.execute(
        sa.select(invitations)
        .where(invitations.c.secret_hash == hash_secret(secret), is_open(), invitations.c.expires_at > now)
        .with_for_update()
    ).one_or_none()
    if row is None:
        raise NotThere("the invitation is not valid: it was used or revoked, or has expired")
    return _accept(
        connection,
        _invitation(row),
        first_name=first_name,
        last_name=last_name,
        password_hash=password_hash,
        identity=None,
        now=now,
    )


def accept_by_email(
    connection: Connection,
    email: str,
    *,
    first_name: str,
    last_name: str,
    identity: OidcIdentity,
    now: datetime,
    organization_id: str | None = None,
) -> User | None:
    """Make the user who was invited and has proved to be `email`'s owner; None if nobody invited that address.

    The latest invitation counts. organization_id: that of the invitation, any if None.
    Raises: Conflict, Unacceptable.
    """
    query = sa.select(invitations).where(
        invitations.c.email == check_email(email), is_open(), invitations.c.expires_at > now
    )
    if organization_id is not None:
        query = query.where(invitations.c.organization_id == organization_id)
    newest_first = query.order_by(invitations.c.created_at.desc(), invitations.c.id)
    row = connection.execute(newest_first.limit(1).with_for_update()).one_or_none()
    if row is None:
        return None
    return _accept(
        connection,
        _invitation(row),
        first_name=first_name,
        last_name=last_name,
        password_hash=None,
        identity=identity,
        now=now,
    )


def _accept(
    connection: Connection,
    invitation: Invitation,
    *,
    first_name: str,
    last_name: str,
    password_hash: str | None,
    identity: OidcIdentity | None,
    now: datetime,
) -> User:
    organization_id = invitation.organization_id
    connection.execute(
        sa.update(invitations).where(invitations.c.id == invitation.id).values(accepted_at=now)
    )
    user = create_user(
        connection,
        organization_id=organization_id,
        email=invitation.email,
        first_name=first_name,
        last_name=last_name,
        roles=invitation.roles,
        subscription_types=invitation.subscription_types,
        password_hash=password_hash,
        identity=identity,
        actor=None,
        now=now,
    )
    newcomer = Actor("HUMAN", user.id, {"email": user.email})
    joined = {membership.workspace_id for membership in user.memberships}
    for workspace_id in _still_open(connection, organization_id, invitation.workspace_ids):
        if workspace_id not in joined:
            insert_member(connection, organization_id, workspace_id, user.id, None, newcomer, now)
    _record(connection, newcomer, "organization.invite.accepted", invitation, now)
    audit.record(
        connection,
        newcomer,
        "user.organization.join",
        "ORGANIZATION",
        {"uuid": organization_id},
        organization_id=organization_id,
        now=now,
    )
    return find_user(connection, organization_id, user.id)


def _still_open(connection: Connection, organization_id: str, workspace_ids: Sequence[str]) -> Sequence[str]:
    return connection.scalars(
        sa.select(workspaces.c.id)
        .where(
            workspaces.c.id.in_(workspace_ids),
            workspaces.c.organization_id == organization_id,
            workspaces.c.archived_at.is_(None),
        )
        .order_by(workspaces.c.id)
        .with_for_update(read=True)
    ).all()


def _open_ones(connection: Connection, organization_id: str, address: str) -> list[Invitation]:
    rows = connection.execute(
        sa.select(invitations).where(
            invitations.c.organization_id == organization_id, invitations.c.email == address, is_open()
        )
    )
    return [_invitation(row) for row in rows]


def _matching(organization_id: str, email: str | None) -> sa.ColumnElement[bool]:
    condition = sa.and_(invitations.c.organization_id == organization_id, is_open())
    return sa.and_(condition, invitations.c.email.icontains(email, autoescape=True)) if email else condition


def _record(
    connection: Connection, actor: Actor, event_type: str, invitation: Invitation, now: datetime
) -> None:
    audit.record(
        connection,
        actor,
        event_type,
        "ORGANIZATION",
        {"uuid": invitation.organization_id},
        event={
            "invite_uuid": invitation.id,
            "email": invitation.email,
            "roles": " ".join(invitation.roles),
        },
        organization_id=invitation.organization_id,
        now=now,
    )


def _invitation(row: Row[Any]) -> Invitation:
    return Invitation(
        id=row.id,
        organization_id=row.organization_id,
        email=row.email,
        roles=tuple(row.roles),
        subscription_types=tuple(row.subscription_types),
        workspace_ids=tuple(row.workspace_ids),
        language=row.language,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
