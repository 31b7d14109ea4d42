"""A copy of a database while it is in use: whole, of one moment, and checked."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from mezzo.store.database import Database

_PAGES_AT_ONCE = 2_000


class BackupFailed(Exception):
    """No copy was made; the message says why, and nothing is left at the target."""


def back_up(
    database: Database,
    url: str,
    target: Path,
    *,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Write a copy to `target`, which must not exist, readable by its owner only.

    SQLite: a database file, made by SQLite's online backup and checked. PostgreSQL: an archive in pg_dump's custom
    format, for pg_restore. on_progress: pages done, and of how many. Raises: BackupFailed, OSError.
    """
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise BackupFailed(f"{target} exists; backups never replace a file") from None
    try:
        if database.path is not None:
            _copy_sqlite(database.path, target, on_progress)
        else:
            _dump_postgresql(url, target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _copy_sqlite(source: Path, target: Path, on_progress: Callable[[int, int], None]) -> None:
    uri = f"file:{quote(str(source))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as original, closing(sqlite3.connect(target)) as copy:
        try:
            original.backup(
                copy,
                pages=_PAGES_AT_ONCE,
                progress=lambda status, remaining, total: on_progress(total - remaining, total),
            )
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
        except sqlite3.Error as error:
            raise BackupFailed(f"SQLite says: {error}") from error
    if verdict != "ok":
        raise BackupFailed(f"the copy is damaged: {verdict}")


def _dump_postgresql(url: str, target: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise BackupFailed("pg_dump is not installed; it comes with PostgreSQL's client programs")
    address = url.replace("postgresql+psycopg://", "postgresql://", 1)
    # The address may hold a password, so it does not go where every user of the machine can read it.
    done = subprocess.run(  # noqa: S603
        [program, "--format=custom", f"--file={target}", "--no-password"],
        env={**os.environ, **_connection_environment(address)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BackupFailed(
            f"pg_dump says: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'nothing'}"
        )


def _connection_environment(url: str) -> dict[str, str]:
    import psycopg  # noqa: PLC0415  only where there is a PostgreSQL

    names = {
        "host": "PGHOST",
        "port": "PGPORT",
        "user": "PGUSER",
        "password": "PGPASSWORD",
        "dbname": "PGDATABASE",
    }
    names |= {"sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}
    values = psycopg.conninfo.conninfo_to_dict(url)
    return {names[name]: str(value) for name, value in values.items() if name in names and value is not None}
