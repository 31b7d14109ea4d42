"""One organisation never sees another's: whatever an id names is looked up here, together with its organisation.

An id of another organisation, of something deleted, and one that nobody ever had look the same.
"""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from mezzo.accounts.errors import NotThere
from mezzo.store.tables import invitations, users, workspaces

Lock = Literal["shared", "exclusive"]
"""How a row is held until the end of a transaction, where the database holds rows: `shared` while something is made
that refers to it, `exclusive` while it is changed or ended."""


def require_user(
    connection: Connection, organization_id: str, user_id: str, *, lock: Lock | None = None
) -> Row[Any]:
    """Return the row of a user who has not left. Raises: NotThere."""
    return _require(connection, users, "User", organization_id, user_id, users.c.deleted_at.is_(None), lock)


def require_workspace(
    connection: Connection, organization_id: str, workspace_id: str, *, lock: Lock | None = None
) -> Row[Any]:
    """Return the row of a workspace that is not archived. Raises: NotThere."""
    is_open = workspaces.c.archived_at.is_(None)
    return _require(connection, workspaces, "Workspace", organization_id, workspace_id, is_open, lock)


def require_invitation(
    connection: Connection, organization_id: str, invitation_id: str, *, lock: Lock | None = None
) -> Row[Any]:
    """Return the row of an invitation that was neither accepted nor revoked; it may have expired. Raises: NotThere."""
    return _require(connection, invitations, "Invitation", organization_id, invitation_id, is_open(), lock)


def find_default_workspace(connection: Connection, organization_id: str) -> str | None:
    """Return the id of the default workspace; None only before an organisation has been set up."""
    found: str | None = connection.execute(
        sa.select(workspaces.c.id).where(
            workspaces.c.organization_id == organization_id, workspaces.c.is_default
        )
    ).scalar_one_or_none()
    return found


def is_open() -> sa.ColumnElement[bool]:
    """Return the condition that an invitation was neither accepted nor revoked."""
    return sa.and_(invitations.c.accepted_at.is_(None), invitations.c.revoked_at.is_(None))


def _require(
    connection: Connection,
    table: sa.Table,
    noun: str,
    organization_id: str,
    object_id: str,
    condition: sa.ColumnElement[bool],
    lock: Lock | None,
) -> Row[Any]:
    query = sa.select(table).where(
        table.c.id == object_id, table.c.organization_id == organization_id, condition
    )
    if lock is not None:
        query = query.with_for_update(read=lock == "shared")
    # PostgreSQL has no text with a NUL in it, and would fail.
    row = None if "\0" in object_id else connection.execute(query).one_or_none()
    if row is None:
        raise NotThere(f"{noun} {object_id} not found")
    return row
