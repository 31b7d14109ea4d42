"""Bringing a schema up to date. What each release changed stands in migrations/versions, and is never edited."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from mezzo.store.database import Database, DatabaseUnavailable

HEAD = "0001"
"""The revision of this version's tables."""

# Any number that nobody else in the same PostgreSQL takes a lock on.
_LOCK = 0x6D657A7A6F
_VERSION_TABLE = "alembic_version"


def migrate(database: Database, *, revision: str = HEAD) -> None:
    """See `Database.migrate`. revision: where to stop, for tests of migrations."""
    try:
        with database.read() as connection:
            if current_revision(connection) == revision:
                return
        with database.write() as connection:
            if not database.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            current = current_revision(connection)
            if current != revision:
                _upgrade(connection, current, revision)
    except OperationalError as error:
        raise DatabaseUnavailable(_reason(error)) from error


def current_revision(connection: Connection) -> str | None:
    """Return the revision of a database, None for an empty one."""
    if not sa.inspect(connection).has_table(_VERSION_TABLE):
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar_one_or_none()  # noqa: S608


def _upgrade(connection: Connection, current: str | None, revision: str) -> None:
    # Slow to import, and most starts find nothing to do.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "mezzo.store:migrations")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise DatabaseUnavailable(
            f"the database has schema {current}, which this version of mezzo does not know: a newer one made it"
        )
    command.upgrade(config, revision)


def _reason(error: OperationalError) -> str:
    """Return what the driver said, without the statement and its values."""
    return str(error.orig).strip().splitlines()[0] if error.orig else "the database cannot be reached"
