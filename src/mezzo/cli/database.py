"""The database of the settings, for commands that read or change accounts and books directly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mezzo.cli.output import CommandFailed

if TYPE_CHECKING:
    from mezzo.settings import Settings
    from mezzo.store.database import Database


@contextlib.contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """Yield the database with its schema up to date; a server may be using it. Raises: CommandFailed."""
    from sqlalchemy.exc import SQLAlchemyError

    from mezzo.store.database import Database, DatabaseUnavailable
    from mezzo.store.group_commit import reason

    try:
        database = Database(settings.resolve_database_url())
        database.migrate()
    except DatabaseUnavailable as error:
        raise CommandFailed(f"the database cannot be used: {error}") from error
    except OSError as error:
        raise CommandFailed(f"the database's file cannot be used: {error.strerror or error}") from error
    try:
        yield database
    except SQLAlchemyError as error:
        raise CommandFailed(f"the database says: {reason(error)}") from error
    finally:
        database.dispose()
