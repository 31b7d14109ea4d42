"""Statements of the hot path, compiled once for each dialect and handed to the driver.

A statement that SQLAlchemy runs costs several times what the database needs for it. Where a handful of them stand in
every request's way, they are compiled when they are first used, and from then on run by the driver's cursor inside the
transaction that SQLAlchemy holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql.compiler import SQLCompiler


class Prepared:
    """An INSERT or UPDATE whose values are given by name."""

    def __init__(self, make: Callable[[str], sa.Insert | sa.Update], names: Sequence[str]) -> None:
        """make: returns the statement for a dialect. names: of its values, columns and parameters alike."""
        self._make = make
        self._names = tuple(names)
        self._by_dialect: dict[str, _Compiled] = {}

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it once for each row, of which there is at least one. Raises: the driver's own errors."""
        dialect = connection.dialect
        compiled = self._by_dialect.get(dialect.name)
        if compiled is None:
            compiled = _compile(self._make(dialect.name), connection, self._names)
            self._by_dialect[dialect.name] = compiled
        driver = connection.connection.dbapi_connection
        assert driver is not None
        cursor = driver.cursor()
        try:
            if len(rows) == 1:
                cursor.execute(compiled.text, compiled.values(rows[0]))
            else:
                cursor.executemany(compiled.text, [compiled.values(row) for row in rows])
        finally:
            cursor.close()


@dataclass(frozen=True, slots=True)
class _Compiled:
    """positions: the names in the order of the placeholders, None where placeholders have names."""

    text: str
    names: tuple[str, ...]
    positions: tuple[str, ...] | None
    converters: Mapping[str, Callable[[Any], Any]]

    def values(self, row: Mapping[str, Any]) -> Any:
        """Return a row as the driver takes it."""
        values = {name: row[name] for name in self.names}
        for name, convert in self.converters.items():
            values[name] = convert(values[name])
        return values if self.positions is None else [values[name] for name in self.positions]


def _compile(statement: sa.Insert | sa.Update, connection: Connection, names: tuple[str, ...]) -> _Compiled:
    dialect = connection.dialect
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    assert isinstance(compiled, SQLCompiler)
    processors = {
        name: compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect) for name in names
    }
    return _Compiled(
        text=str(compiled),
        names=names,
        positions=None if compiled.positiontup is None else tuple(compiled.positiontup),
        converters={name: convert for name, convert in processors.items() if convert is not None},
    )
