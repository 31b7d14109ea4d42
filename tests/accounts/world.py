"""Organisations to try accounts on. Many share a database, and none may see another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from mezzo.accounts import audit, users
from mezzo.accounts.audit import OPERATOR, AuditEntry
from mezzo.accounts.bootstrap import prepare
from mezzo.accounts.keys import ApiKey, create_admin_key, create_key
from mezzo.accounts.users import User
from mezzo.accounts.workspaces import Workspace, create_workspace
from mezzo.kit.ids import new_uuid
from mezzo.store.database import Database
from mezzo.store.tables import organizations, workspaces

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
OPERATOR_KEY = "mz-operator-key-0123456789"

_T = TypeVar("_T")


class Organization:
    """One organisation of a database, and short ways to fill it."""

    def __init__(self, database: Database, organization_id: str, workspace_id: str) -> None:
        self.database = database
        self.id = organization_id
        self.workspace_id = workspace_id

    def read(self, work: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Call `work(connection, organization_id, ...)`."""
        with self.database.read() as connection:
            return work(connection, self.id, *args, **kwargs)

    def change(self, work: Callable[..., _T], *, now: datetime = NOW, **kwargs: Any) -> _T:
        """Call `work(connection, organization_id=..., actor=..., now=..., ...)` in one transaction."""
        with self.database.write() as connection:
            return work(connection, organization_id=self.id, actor=OPERATOR, now=now, **kwargs)

    def user(self, email: str, **fields: Any) -> User:
        return self.change(
            users.create_user, **({"email": email, "first_name": "Ada", "last_name": "Lovelace"} | fields)
        )

    def workspace(self, name: str, **fields: Any) -> Workspace:
        return self.change(create_workspace, name=name, **fields)

    def key(self, **fields: Any) -> tuple[ApiKey, str]:
        return self.change(create_key, **({"workspace_id": self.workspace_id, "user_id": None} | fields))

    def admin_key(self, **fields: Any) -> tuple[ApiKey, str]:
        return self.change(create_admin_key, **fields)

    def audit(self, **filters: Any) -> list[AuditEntry]:
        """Return entries, oldest first."""
        return list(self.read(audit.list_entries, newest_first=False, **filters))

    def events(self) -> list[str]:
        return [entry.event_type for entry in self.audit()]


def set_up(database: Database) -> Organization:
    """Make what a first start makes."""
    made = prepare(database, operator_key=OPERATOR_KEY, secret="s" * 43, currency="USD", now=NOW)
    return Organization(database, made.organization_id, made.workspace_id)


def make_organization(database: Database) -> Organization:
    """Make an organisation with a default workspace, as an enterprise account would."""
    made = Organization(database, new_uuid(), new_uuid())
    with database.write() as connection:
        connection.execute(sa.insert(organizations).values(id=made.id, name="One more", created_at=NOW))
        connection.execute(
            sa.insert(workspaces).values(
                id=made.workspace_id,
                organization_id=made.id,
                name="Default workspace",
                is_default=True,
                has_priority=False,
                created_at=NOW,
            )
        )
    return made
