"""Column types that mean the same in every database: moments, amounts, ids, and when a row may never change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

_WHERE = "mezzo_where"

metadata = sa.MetaData(naming_convention=NAMING)
"""Every table of mezzo. Importing `mezzo.store.tables` fills it."""


class Moment(sa.TypeDecorator[datetime]):
    """A moment in UTC, to the microsecond, whatever the time zones of server and database.

    PostgreSQL keeps a `timestamptz`, SQLite its ISO text, which sorts as the moments do.
    Raises: ValueError for a datetime without a time zone, which would mean another moment elsewhere.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def id_column(name: str, *constraints: Any, **options: Any) -> sa.Column[str]:
    """Return a column for a UUID in text form, or for another id of at most 64 characters."""
    return sa.Column(name, sa.String(64), *constraints, **options)


def amount_column(name: str, **options: Any) -> sa.Column[int]:
    """Return a column for an amount of money in nano-units of the installation's currency: an exact integer."""
    return sa.Column(name, sa.BigInteger, **options)


def unique_where(condition: str, name: str, *columns: str) -> sa.Index:
    """Return an index of columns that are unique together among the rows that meet a condition, given in SQL."""
    return sa.Index(name, *columns, unique=True, info={_WHERE: condition})


def say_conditions() -> None:
    """Tell SQLAlchemy the conditions of `unique_where`, in the words of every database.

    Only migrations need that, and it imports all drivers of PostgreSQL that SQLAlchemy knows.
    """
    for table in metadata.tables.values():
        for index in table.indexes:
            if _WHERE in index.info:
                for option in ("sqlite_where", "postgresql_where"):
                    index.dialect_kwargs[option] = sa.text(index.info[_WHERE])
