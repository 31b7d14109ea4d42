"""What the commands that report on the books share: whose books, and which period."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from mezzo.cli.database import open_database
from mezzo.cli.options import read_settings
from mezzo.cli.output import CommandFailed

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from sqlalchemy.engine import Connection

    from mezzo.metering.periods import Period

# Options that mean the same in every command on a period.
FirstDay = Annotated[
    datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day of the period.")
]
EndDay = Annotated[
    datetime | None,
    typer.Option("--to", formats=["%Y-%m-%d"], help="The first day that no longer belongs to it."),
]
Zone = Annotated[
    str, typer.Option(metavar="NAME", help="Whose midnights divide the days, like Europe/Paris.")
]
Workspace = Annotated[str | None, typer.Option(metavar="ID", help="Only what this workspace used.")]
Organization = Annotated[
    str | None, typer.Option(metavar="ID", help="Whose usage; may be left out where there is one.")
]


@dataclass(frozen=True, slots=True)
class OpenBooks:
    """One organisation's books, to be read."""

    connection: Connection
    organization_id: str
    currency: str


@contextmanager
def read_books(
    organization: str | None, *, home: Path | None = None, config: Path | None = None
) -> Iterator[OpenBooks]:
    """Open the database of the settings, its schema brought up to date. A server may be running on it.

    organization: an id; may be left out where there is one alone. Raises: CommandFailed, also for what the database
    does while it is read.
    """
    settings = read_settings({"home": home}, config=config)
    with open_database(settings) as database, database.read() as connection:
        yield _find_organization(connection, organization)


def choose_zone(name: str) -> ZoneInfo:
    """Return the time zone that an option names. Raises: CommandFailed."""
    from mezzo.metering.periods import PeriodInvalid, find_zone

    try:
        return find_zone(name)
    except PeriodInvalid as error:
        refuse(f"--zone: {error}")


def choose_period(
    month: str | None, first: datetime | None, end: datetime | None, zone: ZoneInfo, now: datetime
) -> Period:
    """Return the period that options name: a month, this month if none, or days. Raises: CommandFailed."""
    from mezzo.metering.periods import Month, Period, PeriodInvalid

    if month is not None and (first is not None or end is not None):
        refuse("--month and --from or --to are both given; a period is one or the other")
    if (first is None) != (end is None):
        refuse("--from and --to belong together")
    try:
        if first is not None and end is not None:
            return Period.of_days(first.date(), end.date(), zone)
        return Period.of_month(Month.at(now, zone) if month is None else Month.parse(month), zone)
    except PeriodInvalid as error:
        refuse(str(error))


def refuse(message: str, *, hint: str | None = None) -> NoReturn:
    """End the command: it was called wrongly."""
    raise CommandFailed(message, hint=hint, exit_code=2)


def _find_organization(connection: Connection, wanted: str | None) -> OpenBooks:
    import sqlalchemy as sa

    from mezzo.store.tables import installation, organizations

    currency = connection.execute(sa.select(installation.c.currency)).scalar_one_or_none()
    ids = list(
        connection.scalars(
            sa.select(organizations.c.id).order_by(organizations.c.created_at, organizations.c.id)
        )
    )
    if currency is None or not ids:
        raise CommandFailed(
            "nothing is in the books yet", hint="They begin with the first start of `mezzo serve`."
        )
    if wanted is None and len(ids) > 1:
        refuse("there are several organizations", hint=f"Name one with --organization: {', '.join(ids)}")
    if wanted is not None and wanted not in ids:
        refuse(f"--organization: there is no organization {wanted!r}")
    return OpenBooks(connection, wanted or ids[0], currency)
