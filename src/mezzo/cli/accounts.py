"""What the commands on accounts share: the database of the settings, names for ids, tables, and passwords.

They work on the database itself, whether or not a server runs; a running one sees every change within a second.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzo.cli.database import open_database
from mezzo.cli.options import read_settings
from mezzo.cli.output import CommandFailed, put

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Connection

    from mezzo.accounts.users import User
    from mezzo.accounts.workspaces import Workspace
    from mezzo.settings import Settings
    from mezzo.store.database import Database

# What accounts call by another name than the options do.
_OPTIONS = {
    "expiration": "--expires",
    "monthly_limit": "--monthly",
    "role_names": "--role",
    "model": "--model",
    "requests_per_minute": "--requests-per-minute",
    "tokens_per_minute": "--tokens-per-minute",
    "tokens_per_month": "--tokens-per-month",
}


class Accounts:
    """One transaction on the first organisation of the database.

    change   what every function that changes something takes: whose it is, who does it, and when
    """

    def __init__(self, connection: Connection, organization_id: str, now: datetime) -> None:
        from mezzo.accounts.audit import OPERATOR

        self.connection = connection
        self.organization_id = organization_id
        self.now = now
        self.change: dict[str, Any] = {"organization_id": organization_id, "actor": OPERATOR, "now": now}

    def user(self, email_or_id: str) -> User:
        """Return a user by address or id. Raises: NotThere."""
        from mezzo.accounts.users import find_user, find_user_by_email

        by_email = find_user_by_email(self.connection, self.organization_id, email_or_id)
        return by_email or find_user(self.connection, self.organization_id, email_or_id.lower())

    def workspace(self, name_or_id: str) -> Workspace:
        """Return an open workspace by name or id. Raises: NotThere; CommandFailed if several have the name."""
        from mezzo.accounts.workspaces import find_workspace, list_workspaces

        everything = list_workspaces(self.connection, self.organization_id)
        named = [workspace for workspace in everything if workspace.name == name_or_id]
        if len(named) > 1:
            ids = ", ".join(workspace.id for workspace in named)
            raise CommandFailed(f"{len(named)} workspaces are called {name_or_id}", hint=f"Give an id: {ids}")
        if named:
            return named[0]
        return find_workspace(self.connection, self.organization_id, name_or_id.lower())

    def emails(self) -> dict[str, str]:
        """Return the addresses of users by their ids."""
        from mezzo.accounts.users import list_users

        return {user.id: user.email for user in list_users(self.connection, self.organization_id)}


@contextmanager
def accounts(home: Path | None, config: Path | None, *, read_only: bool = False) -> Iterator[Accounts]:
    """Open the database of the settings for one transaction, which is committed at the end unless it is `read_only`.

    A database without anything in it gets what a first start makes. Raises: CommandFailed, also for what accounts
    refuse inside.
    """
    from datetime import UTC, datetime

    from mezzo.accounts.errors import AccountsError, Unacceptable

    settings = read_settings({"home": home}, config=config)
    now = datetime.now(UTC)
    try:
        with open_database(settings) as database:
            organization_id = _organization(database, settings, now)
            with database.read() if read_only else database.write() as connection:
                yield Accounts(connection, organization_id, now)
    except Unacceptable as error:
        name = _OPTIONS.get(error.param, error.param)
        raise CommandFailed(f"{name}: {error}", exit_code=2) from error
    except AccountsError as error:
        raise CommandFailed(str(error)) from error


def _organization(database: Database, settings: Settings, now: datetime) -> str:
    from mezzo.accounts.bootstrap import find_first_organization, prepare
    from mezzo.kit.secrets import MachineKeyError
    from mezzo.store.database import DatabaseUnavailable

    with database.read() as connection:
        first = find_first_organization(connection)
    if first is not None:
        return first
    try:
        made = prepare(
            database,
            operator_key=settings.resolve_api_key(),
            secret=settings.resolve_secret_key(),
            currency=settings.currency,
            now=now,
        )
    except (DatabaseUnavailable, MachineKeyError) as error:
        raise CommandFailed(str(error)) from error
    except OSError as error:
        raise CommandFailed(f"this machine's keys cannot be kept: {error.strerror or error}") from error
    return made.organization_id


def put_json(value: object) -> None:
    """Print a value for programs. Moments and days are ISO 8601."""
    put(json.dumps(value, indent=2, ensure_ascii=False, default=lambda moment: moment.isoformat()))


def put_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows for people. None is a dash; what stands in a cell is shown as it is, the first column never broken."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, heading in enumerate(headings):
        table.add_column(heading, no_wrap=position == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text("–" if cell is None else str(cell)) for cell in row))
    Console().print(table)


def under(first: str, second: str | None) -> str:
    """Return what goes into one cell with the second text under the first, so that rows stay narrow."""
    return first if second is None else f"{first}\n  {second}"


def amount_text(nano: int | None) -> str | None:
    """Return an amount in whole units of the currency, exact; None for none."""
    from mezzo.kit.money import format_amount

    return None if nano is None else format_amount(nano)


def read_amount(text: str, option: str) -> int:
    """Return the nano-units of an amount that an option has. Raises: CommandFailed."""
    from mezzo.kit.money import parse_amount

    try:
        return parse_amount(text)
    except ValueError as error:
        raise CommandFailed(f"{option}: {error}", exit_code=2) from error


def read_password(*, from_stdin: bool) -> str:
    """Return a password, asked for twice at the terminal, or the first line of stdin. Raises: CommandFailed."""
    from getpass import getpass

    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise CommandFailed(
            "there is no terminal to ask for the password",
            hint="Give it on the standard input, with --password-stdin.",
            exit_code=2,
        )
    password = getpass("Password: ")
    if getpass("Once more: ") != password:
        raise CommandFailed("the two passwords differ")
    return password
