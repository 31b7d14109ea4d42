"""Who is in a workspace, and with which roles there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.accounts import audit
from mezzo.accounts.audit import Actor
from mezzo.accounts.errors import Conflict
from mezzo.accounts.roles import WORKSPACE_ROLES
from mezzo.accounts.scope import require_user, require_workspace
from mezzo.store.tables import users, workspace_members, workspaces

Roles = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody in a workspace. roles: names of workspace roles, strongest first."""

    user_id: str
    email: str
    roles: Roles
    added_at: datetime


@dataclass(frozen=True, slots=True)
class Membership:
    """A workspace that somebody is in."""

    workspace_id: str
    workspace_name: str
    is_default: bool
    roles: Roles


@dataclass(frozen=True, slots=True)
class MembersSet:
    """What `set_members` did. num_updated: members whose roles are others than before."""

    num_added: int
    num_updated: int


def add_members(
    connection: Connection,
    *,
    organization_id: str,
    workspace_id: str,
    members: Mapping[str, Roles | None],
    actor: Actor,
    now: datetime,
) -> int:
    """Add users, by their ids, with roles or the default one; return how many.

    All or none. Raises: NotThere; Conflict for somebody who is a member.
    """
    require_workspace(connection, organization_id, workspace_id, lock="shared")
    _require_users(connection, organization_id, members)
    present = _roles_of(connection, workspace_id, members)
    if present:
        raise Conflict(f"User {next(iter(present))} is a member of the workspace already")
    for user_id, roles in members.items():
        insert_member(connection, organization_id, workspace_id, user_id, roles, actor, now)
    return len(members)


def set_members(
    connection: Connection,
    *,
    organization_id: str,
    workspace_id: str,
    members: Mapping[str, Roles | None],
    actor: Actor,
    now: datetime,
) -> MembersSet:
    """Add users who are no members, and give those who are the roles named; None leaves theirs. Raises: NotThere."""
    require_workspace(connection, organization_id, workspace_id, lock="shared")
    _require_users(connection, organization_id, members)
    present = _roles_of(connection, workspace_id, members)
    num_updated = 0
    for user_id, roles in members.items():
        old = present.get(user_id)
        if old is None:
            insert_member(connection, organization_id, workspace_id, user_id, roles, actor, now)
        elif roles is not None and roles != old:
            _update_member(connection, organization_id, workspace_id, user_id, old, roles, actor, now)
            num_updated += 1
    return MembersSet(num_added=len(members) - len(present), num_updated=num_updated)


def remove_members(
    connection: Connection,
    *,
    organization_id: str,
    workspace_id: str,
    user_ids: Collection[str],
    actor: Actor,
    now: datetime,
) -> list[str]:
    """Take users out of a workspace; return the ids of those who were not in it. Their keys stay good.

    Raises: NotThere.
    """
    require_workspace(connection, organization_id, workspace_id, lock="shared")
    _require_users(connection, organization_id, user_ids)
    absent = []
    for user_id in dict.fromkeys(user_ids):
        if not delete_member(connection, organization_id, workspace_id, user_id, actor, now):
            absent.append(user_id)
    return absent


def list_members(connection: Connection, organization_id: str, workspace_id: str) -> Sequence[Member]:
    """Return the members of a workspace, first come first. Raises: NotThere."""
    require_workspace(connection, organization_id, workspace_id)
    rows = connection.execute(
        sa.select(workspace_members, users.c.email)
        .join(users, users.c.id == workspace_members.c.user_id)
        .where(workspace_members.c.workspace_id == workspace_id, users.c.deleted_at.is_(None))
        .order_by(workspace_members.c.added_at, users.c.email)
    )
    return [Member(row.user_id, row.email, tuple(row.roles), row.added_at) for row in rows]


def memberships_of(connection: Connection, user_ids: Collection[str]) -> dict[str, list[Membership]]:
    """Return the workspaces of each user, the default one first, archived ones left out."""
    rows = connection.execute(
        sa.select(workspace_members, workspaces.c.name, workspaces.c.is_default)
        .join(workspaces, workspaces.c.id == workspace_members.c.workspace_id)
        .where(workspace_members.c.user_id.in_(user_ids), workspaces.c.archived_at.is_(None))
        .order_by(workspaces.c.is_default.desc(), workspace_members.c.added_at, workspaces.c.id)
    )
    memberships: dict[str, list[Membership]] = {user_id: [] for user_id in user_ids}
    for row in rows:
        memberships[row.user_id].append(
            Membership(row.workspace_id, row.name, row.is_default, tuple(row.roles))
        )
    return memberships


def insert_member(
    connection: Connection,
    organization_id: str,
    workspace_id: str,
    user_id: str,
    roles: Roles | None,
    actor: Actor,
    now: datetime,
) -> None:
    """Add a user who is known to be no member to a workspace that is known to be the organisation's."""
    roles = roles or (WORKSPACE_ROLES.default,)
    connection.execute(
        sa.insert(workspace_members).values(
            workspace_id=workspace_id, user_id=user_id, roles=list(roles), added_at=now
        )
    )
    _record(
        connection,
        "workspace.member.add",
        organization_id,
        workspace_id,
        user_id,
        actor,
        now,
        {"roles": " ".join(roles)},
    )


def delete_member(
    connection: Connection,
    organization_id: str,
    workspace_id: str,
    user_id: str,
    actor: Actor,
    now: datetime,
) -> bool:
    """Take a user out of a workspace that is known to be the organisation's; tell whether they were in it."""
    deleted = connection.execute(
        sa.delete(workspace_members).where(
            workspace_members.c.workspace_id == workspace_id, workspace_members.c.user_id == user_id
        )
    )
    if deleted.rowcount:
        _record(connection, "workspace.member.remove", organization_id, workspace_id, user_id, actor, now, {})
    return deleted.rowcount > 0


def _update_member(
    connection: Connection,
    organization_id: str,
    workspace_id: str,
    user_id: str,
    old: Roles,
    new: Roles,
    actor: Actor,
    now: datetime,
) -> None:
    connection.execute(
        sa.update(workspace_members)
        .where(workspace_members.c.workspace_id == workspace_id, workspace_members.c.user_id == user_id)
        .values(roles=list(new))
    )
    change = {"old_roles": " ".join(old), "new_roles": " ".join(new)}
    _record(
        connection,
        "workspace.member.role.update",
        organization_id,
        workspace_id,
        user_id,
        actor,
        now,
        change,
    )


def _record(
    connection: Connection,
    event_type: str,
    organization_id: str,
    workspace_id: str,
    user_id: str,
    actor: Actor,
    now: datetime,
    event: Mapping[str, str],
) -> None:
    audit.record(
        connection,
        actor,
        event_type,
        "USER",
        {"uuid": user_id},
        event=event,
        organization_id=organization_id,
        workspace_id=workspace_id,
        now=now,
    )


def _require_users(connection: Connection, organization_id: str, user_ids: Collection[str]) -> None:
    # In one order for everybody, so that two transactions never wait for each other.
    for user_id in sorted(user_ids):
        require_user(connection, organization_id, user_id, lock="shared")


def _roles_of(connection: Connection, workspace_id: str, user_ids: Collection[str]) -> dict[str, Roles]:
    rows = connection.execute(
        sa.select(workspace_members.c.user_id, workspace_members.c.roles).where(
            workspace_members.c.workspace_id == workspace_id, workspace_members.c.user_id.in_(user_ids)
        )
    )
    return {row.user_id: tuple(row.roles) for row in rows}
