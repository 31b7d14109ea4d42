"""The first start: an organisation, a workspace and a key, so that there is something to begin with.

Every later start checks that the server and the database belong together. Several servers may start at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.accounts import audit
from mezzo.accounts.audit import OPERATOR
from mezzo.accounts.keys import insert_key
from mezzo.accounts.scope import find_default_workspace
from mezzo.kit.ids import new_uuid
from mezzo.kit.secrets import fingerprint, hash_secret
from mezzo.store.database import Database, DatabaseUnavailable, insert_into
from mezzo.store.tables import api_keys, installation, organizations, workspaces

OPERATOR_KEY_NAME = "operator"


@dataclass(frozen=True, slots=True)
class Installation:
    """What stands after a start.

    organization_id, workspace_id   the first organisation and its default workspace
    is_key_good                     whether the operator's key may be used; False once somebody revoked it
    """

    organization_id: str
    workspace_id: str
    is_key_good: bool


def prepare(
    database: Database, *, operator_key: str, secret: str, currency: str, now: datetime
) -> Installation:
    """Bring the schema up to date and make what is missing.

    operator_key: the configured key or this machine's: a key of the default workspace, unless it was revoked.
    secret: the installation's secret, which all its servers share. currency: that of all its amounts.
    Raises: DatabaseUnavailable if the database is another installation's, or cannot be reached.
    """
    database.migrate()
    with database.write() as connection:
        _ensure_installation(connection, database, secret=secret, currency=currency, now=now)
        organization_id, workspace_id = _ensure_organization(connection, now)
        is_good = _ensure_operator_key(connection, operator_key, organization_id, workspace_id, now)
    return Installation(organization_id, workspace_id, is_good)


def find_first_organization(connection: Connection) -> str | None:
    """Return the id of the organisation that the first start made, None before it."""
    return connection.execute(
        sa.select(organizations.c.id).order_by(organizations.c.created_at, organizations.c.id).limit(1)
    ).scalar_one_or_none()


def _ensure_installation(
    connection: Connection, database: Database, *, secret: str, currency: str, now: datetime
) -> None:
    # The first to insert makes the row; on PostgreSQL a second one waits here until the first has committed.
    connection.execute(
        insert_into(installation, database.dialect)
        .values(id=1, currency=currency, secret_fingerprint=fingerprint(secret), created_at=now)
        .on_conflict_do_nothing()
    )
    row = connection.execute(sa.select(installation)).one()
    if row.secret_fingerprint != fingerprint(secret):
        raise DatabaseUnavailable(
            "the database was set up with another secret key; set MEZZO_SECRET_KEY to that one "
            "(the first server made it, in the file secret-key of its folder for data)"
        )
    if row.currency != currency:
        raise DatabaseUnavailable(
            f"the amounts in the database are in {row.currency}, and the setting currency is {currency}"
        )


def _ensure_organization(connection: Connection, now: datetime) -> tuple[str, str]:
    first = find_first_organization(connection)
    if first is None:
        first = new_uuid()
        connection.execute(
            sa.insert(organizations).values(id=first, name="Default organization", created_at=now)
        )
        audit.record(
            connection,
            OPERATOR,
            "organization.create",
            "ORGANIZATION",
            {"uuid": first, "name": "Default organization"},
            organization_id=first,
            now=now,
        )
    workspace_id = find_default_workspace(connection, first)
    if workspace_id is None:
        workspace_id = new_uuid()
        connection.execute(
            sa.insert(workspaces).values(
                id=workspace_id,
                organization_id=first,
                name="Default workspace",
                is_default=True,
                has_priority=False,
                created_at=now,
            )
        )
        audit.record(
            connection,
            OPERATOR,
            "workspace.create",
            "WORKSPACE",
            {"uuid": workspace_id, "name": "Default workspace"},
            organization_id=first,
            workspace_id=workspace_id,
            now=now,
        )
    return first, workspace_id


def _ensure_operator_key(
    connection: Connection, key: str, organization_id: str, workspace_id: str, now: datetime
) -> bool:
    row = connection.execute(
        sa.select(api_keys.c.revoked_at).where(api_keys.c.secret_hash == hash_secret(key))
    ).one_or_none()
    if row is not None:
        return row.revoked_at is None
    insert_key(
        connection,
        key,
        kind="api",
        organization_id=organization_id,
        workspace_id=workspace_id,
        user_id=None,
        name=OPERATOR_KEY_NAME,
        actor=OPERATOR,
        now=now,
    )
    return True
