"""One database by its URL: SQLite in a file, or PostgreSQL. Everything that is kept is kept here.

Reading and writing are separate: a writing transaction of SQLite takes the lock at its beginning, so that it
waits for its turn there and never fails halfway because somebody else was faster.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url

from mezzo.store.columns import metadata, say_conditions
from mezzo.store.url import check_url, is_sqlite, sqlite_path

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

_BUSY_TIMEOUT_MS = 10_000
_BEGIN = "mezzo_begin"
_MUST_LAST = "mezzo_must_last"
_IS_WRITER = "mezzo_is_writer"


class DatabaseUnavailable(Exception):
    """The database cannot be opened, or is not what it should be. The message is for the operator."""


class Database:
    """A database. Safe for threads; each `read` and `write` has a connection of its own from a pool.

    path   the file of a SQLite database, None for PostgreSQL
    """

    def __init__(self, url: str) -> None:
        """Prepare to connect, and make the folder and file of a SQLite database, readable by their owner only.

        url: `sqlite:///relative/path`, `sqlite:////absolute/path`, or `postgresql://user:password@host/name`.
        Raises: DatabaseUrlInvalid; OSError if the folder cannot be made.
        """
        check_url(url)
        self.path = sqlite_path(url) if is_sqlite(url) else None
        self._engine = _postgresql_engine(url) if self.path is None else _sqlite_engine(self.path)
        # What SQLite does in any case: all statements of one transaction see the same.
        self._reading = (
            self._engine
            if self.path is not None
            else self._engine.execution_options(isolation_level="REPEATABLE READ")
        )

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file, which one writer at a time may change."""
        return self.path is not None

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection that sees one state of the database; what it writes is undone."""
        with self._reading.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection whose changes are committed together at the end, durable when this returns.

        An exception undoes them all.
        """
        with (
            self._engine.connect().execution_options(**{_BEGIN: "BEGIN IMMEDIATE"}) as connection,
            connection.begin(),
        ):
            yield connection

    def writer(self) -> Connection:
        """Return a connection of its own, outside the pool, whose every transaction is a writing one.

        It lasts until it is closed. Raises: sqlalchemy.exc.OperationalError if the database cannot be reached; a
        transaction of it also the driver's own errors.
        """
        connection = self._engine.connect().execution_options(**{_BEGIN: "BEGIN IMMEDIATE", _IS_WRITER: True})
        connection.detach()
        if self.is_sqlite:
            # Its commits are waited for; `checkpoint` does that work beside them.
            driver = connection.connection.dbapi_connection
            assert driver is not None
            driver.execute("PRAGMA wal_autocheckpoint=0")
        return connection

    def checkpoint(self) -> None:
        """Bring what was committed from SQLite's log into its file, as far as nobody reads; PostgreSQL does so itself.

        A `writer` leaves it undone, and the log grows until somebody does this.
        """
        if self.is_sqlite:
            with self.read() as connection:
                driver = connection.connection.dbapi_connection
                assert driver is not None
                driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def set_durability(self, connection: Connection, *, must_last: bool) -> None:
        """Say whether the next transaction of a `writer` has to survive a power cut.

        If not, it survives whatever happens to this process, and its commit does not wait for the disk.
        """
        if connection.info.get(_MUST_LAST) is must_last:
            return
        # To the driver directly: SQLAlchemy would begin a transaction, in which SQLite ignores this.
        driver = connection.connection.dbapi_connection
        assert driver is not None
        if self.is_sqlite:
            driver.execute(f"PRAGMA synchronous={'FULL' if must_last else 'NORMAL'}")
        else:
            driver.execute(f"SET synchronous_commit TO {'on' if must_last else 'off'}")
            driver.commit()
        connection.info[_MUST_LAST] = must_last

    def migrate(self) -> None:
        """Bring the schema up to this version's, in one transaction; several servers may start together.

        Raises: DatabaseUnavailable if it cannot be reached, or was made by a newer version of mezzo.
        """
        from mezzo.store.migrate import migrate  # noqa: PLC0415  Alembic is imported only where there is work

        migrate(self)

    def dispose(self) -> None:
        """Close every connection. The next use opens new ones."""
        self._engine.dispose()


def insert_into(table: sa.Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that knows ON CONFLICT, which both databases have in the same form."""
    if dialect == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415  with all its drivers: only where it is used

    return postgresql.insert(table)


def _postgresql_engine(url: str) -> Engine:
    return sa.create_engine(
        make_url(url).set(drivername="postgresql+psycopg"), pool_size=5, max_overflow=15, pool_pre_ping=True
    )


def _sqlite_engine(path: Path) -> Engine:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Before SQLite makes it, so that there is no moment in which others may read it.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    engine = sa.create_engine(
        URL.create("sqlite", database=str(path)),
        pool_size=5,
        max_overflow=15,
        connect_args={"check_same_thread": False},
    )
    sa.event.listen(engine, "connect", _set_up_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(dbapi_connection: Any, record: object) -> None:
    # Transactions are begun by `_begin_sqlite`, not by the driver's guesses.
    dbapi_connection.isolation_level = None
    for pragma in (
        f"busy_timeout={_BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        dbapi_connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    statement = options.get(_BEGIN, "BEGIN")
    if options.get(_IS_WRITER):
        driver = connection.connection.dbapi_connection
        assert driver is not None
        driver.execute(
            statement
        )  # in the way of every request, where SQLAlchemy's care costs more than the statement
    else:
        connection.exec_driver_sql(statement)


def tables() -> sa.MetaData:
    """Return the description of all tables, as this version has them."""
    import mezzo.store.tables  # noqa: F401, PLC0415  fills the metadata

    say_conditions()
    return metadata
