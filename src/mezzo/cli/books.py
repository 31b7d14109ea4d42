"""`mezzo reconcile` and `mezzo backup`: can the books be trusted, and a copy of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mezzo.cli.database import open_database
from mezzo.cli.options import read_settings
from mezzo.cli.output import CommandFailed, put, say

if TYPE_CHECKING:
    from mezzo.metering.reconcile import Reconciliation

_DISAGREES = 1


def reconcile(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings file; ./mezzo.toml is read if there.")
    ] = None,
) -> None:
    """Prove that records, sums and the engines' own counts agree; say where they do not.

    Exits with 1 if they do not. It may run beside a server; requests in flight are told apart.
    """
    from mezzo.metering.reconcile import reconcile as compare

    settings = read_settings(config=config)
    with open_database(settings) as database, database.read() as connection:
        found = compare(connection)
    put(
        json.dumps(asdict(found) | {"agrees": found.agrees}, indent=2)
        if as_json
        else _report(found, settings.currency)
    )
    if not found.agrees:
        raise typer.Exit(_DISAGREES)


def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; must not exist.")],
    *,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings file; ./mezzo.toml is read if there.")
    ] = None,
) -> None:
    """Copy the database to a file while everything runs.

    Of SQLite a database file, to be put in place of the old one; of PostgreSQL an archive for pg_restore. The
    installation's secret (MEZZO_SECRET_KEY, or the file secret-key) is not in it: keep that too, elsewhere.
    """
    from mezzo.store.backup import BackupFailed, back_up

    settings = read_settings(config=config)
    with open_database(settings) as database:
        try:
            with _progress() as on_progress:
                back_up(database, settings.resolve_database_url(), target, on_progress=on_progress)
        except BackupFailed as error:
            raise CommandFailed(str(error)) from error
        except OSError as error:
            raise CommandFailed(f"{target} cannot be written: {error.strerror or error}") from error
    say(f"Backup written to {target} ({target.stat().st_size:,} bytes).")


def _report(found: Reconciliation, currency: str) -> str:
    from mezzo.kit.money import exact_text

    lines = [
        f"{found.num_records:,} records, {exact_text(found.amount)} {currency}; "
        f"{found.num_engine_runs} engine processes; {found.num_open} requests in flight"
    ]
    lines += [
        f"{'FAULT' if finding.is_fault else 'note '} {finding.check}: {finding.subject}: {finding.message}"
        for finding in found.findings
    ]
    lines.append("The books agree." if found.agrees else "The books do NOT agree.")
    return "\n".join(lines)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Copying", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
