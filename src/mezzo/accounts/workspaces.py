"""Workspaces: what keys, files, usage and limits belong to. Each organisation has one default workspace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from mezzo.accounts import audit, keys
from mezzo.accounts.audit import Actor
from mezzo.accounts.errors import Conflict
from mezzo.accounts.members import insert_member
from mezzo.accounts.scope import require_user, require_workspace
from mezzo.accounts.text import check_text
from mezzo.accounts.users import list_users
from mezzo.kit.ids import new_uuid
from mezzo.protocol.admin.fields import MAX_ICON_LENGTH
from mezzo.store.tables import users, workspace_members, workspaces

ADMIN_ROLE = "workspace_admin"


@dataclass(frozen=True, slots=True)
class Workspace:
    """One workspace.

    monthly_limit   most that a month of it may cost, in nano-units; None for no limit of its own
    has_priority    requests with `service_tier: auto` are served, and billed, at the priority tier
    num_members     users of the organisation who are in it
    """

    id: str
    organization_id: str
    name: str
    description: str | None
    icon: str | None
    is_default: bool
    monthly_limit: int | None
    has_priority: bool
    created_at: datetime
    archived_at: datetime | None
    num_members: int


def create_workspace(
    connection: Connection,
    *,
    organization_id: str,
    name: str,
    actor: Actor,
    now: datetime,
    description: str | None = None,
    icon: str | None = None,
    admin_user_id: str | None = None,
    add_all_members: bool = False,
) -> Workspace:
    """Make a workspace.

    admin_user_id: who administers it. add_all_members: let in everybody of the organisation, with the default role.
    Raises: NotThere for the administrator; Unacceptable.
    """
    if admin_user_id is not None:
        require_user(connection, organization_id, admin_user_id, lock="shared")
    workspace_id = new_uuid()
    connection.execute(
        sa.insert(workspaces).values(
            id=workspace_id,
            organization_id=organization_id,
            name=check_text(name, param="name"),
            description=_optional(description, "description"),
            icon=_optional(icon, "icon", MAX_ICON_LENGTH),
            is_default=False,
            has_priority=False,
            created_at=now,
        )
    )
    _record(connection, actor, "workspace.create", organization_id, workspace_id, name, now)
    if admin_user_id is not None:
        insert_member(connection, organization_id, workspace_id, admin_user_id, (ADMIN_ROLE,), actor, now)
    if add_all_members:
        for user in list_users(connection, organization_id):
            if user.id != admin_user_id:
                insert_member(connection, organization_id, workspace_id, user.id, None, actor, now)
    return find_workspace(connection, organization_id, workspace_id)


def update_workspace(
    connection: Connection,
    *,
    organization_id: str,
    workspace_id: str,
    actor: Actor,
    now: datetime,
    name: str | None = None,
    description: str | None = None,
    icon: str | None = None,
) -> Workspace:
    """Change what a workspace is called and looks like. None leaves a field, an empty text empties it.

    Raises: NotThere, Unacceptable.
    """
    old = require_workspace(connection, organization_id, workspace_id, lock="exclusive")
    given = {
        "name": None if name is None else check_text(name, param="name"),
        "description": None if description is None else _optional(description, "description") or "",
        "icon": None if icon is None else _optional(icon, "icon", MAX_ICON_LENGTH) or "",
    }
    changes = {
        field: value or None
        for field, value in given.items()
        if value is not None and (value or None) != getattr(old, field)
    }
    if changes:
        connection.execute(sa.update(workspaces).where(workspaces.c.id == workspace_id).values(changes))
        event = {
            **{f"old_{field}": getattr(old, field) or "" for field in changes},
            **{f"new_{field}": value or "" for field, value in changes.items()},
        }
        _record(connection, actor, "workspace.update", organization_id, workspace_id, old.name, now, event)
    return find_workspace(connection, organization_id, workspace_id)


def archive_workspace(
    connection: Connection, *, organization_id: str, workspace_id: str, actor: Actor, now: datetime
) -> None:
    """Close a workspace for good: its keys are revoked; usage and invoices stay.

    Raises: NotThere, also for one that was archived before; Conflict for the default workspace.
    """
    row = require_workspace(connection, organization_id, workspace_id, lock="exclusive")
    if row.is_default:
        raise Conflict("the default workspace cannot be archived")
    for key in keys.list_keys(connection, organization_id, workspace_id=workspace_id):
        keys.revoke_key(connection, organization_id=organization_id, key_id=key.id, actor=actor, now=now)
    connection.execute(sa.update(workspaces).where(workspaces.c.id == workspace_id).values(archived_at=now))
    _record(connection, actor, "workspace.delete", organization_id, workspace_id, row.name, now)


def set_priority(
    connection: Connection,
    *,
    organization_id: str,
    workspace_id: str,
    has_priority: bool,
    actor: Actor,
    now: datetime,
) -> None:
    """Choose the tier of a workspace's requests that leave it to the server. Raises: NotThere."""
    row = require_workspace(connection, organization_id, workspace_id, lock="exclusive")
    if row.has_priority == has_priority:
        return
    connection.execute(
        sa.update(workspaces).where(workspaces.c.id == workspace_id).values(has_priority=has_priority)
    )
    event = {"has_priority": str(has_priority).lower()}
    _record(connection, actor, "workspace.update", organization_id, workspace_id, row.name, now, event)


def find_workspace(connection: Connection, organization_id: str, workspace_id: str) -> Workspace:
    """Return a workspace that is not archived. Raises: NotThere."""
    row = require_workspace(connection, organization_id, workspace_id)
    return _workspace(row, _num_members(connection, [workspace_id]).get(workspace_id, 0))


def list_workspaces(
    connection: Connection,
    organization_id: str,
    *,
    name: str | None = None,
    include_archived: bool = False,
    limit: int | None = None,
    offset: int = 0,
) -> Sequence[Workspace]:
    """Return workspaces, oldest first. name: a part of it."""
    rows = connection.execute(
        sa.select(workspaces)
        .where(_matching(organization_id, name, include_archived))
        .order_by(workspaces.c.created_at, workspaces.c.id)
        .limit(limit)
        .offset(offset)
    ).all()
    num_members = _num_members(connection, [row.id for row in rows])
    return [_workspace(row, num_members.get(row.id, 0)) for row in rows]


def count_workspaces(
    connection: Connection,
    organization_id: str,
    *,
    name: str | None = None,
    include_archived: bool = False,
) -> int:
    """Return how many workspaces `list_workspaces` would return."""
    condition = _matching(organization_id, name, include_archived)
    return connection.execute(
        sa.select(sa.func.count()).select_from(workspaces).where(condition)
    ).scalar_one()


def _matching(organization_id: str, name: str | None, include_archived: bool) -> sa.ColumnElement[bool]:
    conditions = [workspaces.c.organization_id == organization_id]
    if not include_archived:
        conditions.append(workspaces.c.archived_at.is_(None))
    if name:
        conditions.append(workspaces.c.name.icontains(name, autoescape=True))
    return sa.and_(*conditions)


def _num_members(connection: Connection, workspace_ids: Sequence[str]) -> dict[str, int]:
    rows = connection.execute(
        sa.select(workspace_members.c.workspace_id, sa.func.count().label("num_members"))
        .join(users, users.c.id == workspace_members.c.user_id)
        .where(workspace_members.c.workspace_id.in_(workspace_ids))
        .group_by(workspace_members.c.workspace_id)
    )
    return {row.workspace_id: row.num_members for row in rows}


def _optional(text: str | None, param: str, max_length: int | None = None) -> str | None:
    if not text:
        return None
    return (
        check_text(text, param=param)
        if max_length is None
        else check_text(text, param=param, max_length=max_length)
    )


def _workspace(row: Row[Any], num_members: int) -> Workspace:
    return Workspace(**row._mapping, num_members=num_members)


def _record(
    connection: Connection,
    actor: Actor,
    event_type: str,
    organization_id: str,
    workspace_id: str,
    name: str,
    now: datetime,
    event: dict[str, str] | None = None,
) -> None:
    audit.record(
        connection,
        actor,
        event_type,
        "WORKSPACE",
        {"uuid": workspace_id, "name": name},
        event=event,
        organization_id=organization_id,
        workspace_id=workspace_id,
        now=now,
    )
