from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa

from mezzo.store.backup import BackupFailed, back_up
from mezzo.store.database import Database
from mezzo.store.tables import organizations
from mezzo.store.url import sqlite_url
from tests.databases import PostgresServer, new_sqlite
from tests.metering.entries import NOW


def fill(database: Database) -> None:
    with database.write() as connection:
        connection.execute(
            sa.insert(organizations),
            [{"id": str(number), "name": "x" * 200, "created_at": NOW} for number in range(2000)],
        )


def count(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(organizations)).scalar_one()


def test_a_sqlite_database_is_copied_while_it_is_written(tmp_path: Path) -> None:
    url = new_sqlite(tmp_path)
    database = Database(url)
    fill(database)
    target = tmp_path / "backup.db"
    seen: list[tuple[int, int]] = []
    with database.write() as connection:
        connection.execute(sa.insert(organizations).values(id="late", name="late", created_at=NOW))
        back_up(database, url, target, on_progress=lambda done, of: seen.append((done, of)))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert seen[-1][0] == seen[-1][1] > 100
    assert sorted(path.name for path in tmp_path.glob("backup.db*")) == ["backup.db"]
    copy = Database(sqlite_url(target))
    copy.migrate()
    assert count(copy) == 2000  # not what was under way
    copy.dispose()
    database.dispose()


def test_a_file_that_exists_is_never_replaced(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    database = Database(new_sqlite(tmp_path))
    with pytest.raises(BackupFailed, match="exists"):
        back_up(database, new_sqlite(tmp_path), target)
    assert target.read_text() == "mine"
    database.dispose()


@pytest.mark.skipif(not shutil.which("pg_dump") or not shutil.which("pg_restore"), reason="needs pg_dump")
def test_postgresql_is_dumped_and_can_be_restored(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.make()
    database = Database(url)
    fill(database)
    target = tmp_path / "backup.dump"
    back_up(database, url, target)
    database.dispose()
    restored = postgres.make_empty()
    subprocess.run(["pg_restore", "--no-owner", f"--dbname={restored}", target], check=True)
    copy = Database(restored)
    copy.migrate()
    assert count(copy) == 2000
    copy.dispose()


def test_a_dump_that_fails_leaves_nothing(tmp_path: Path) -> None:
    url = "postgresql://mezzo@127.0.0.1:1/nothing"
    with pytest.raises(BackupFailed):
        back_up(Database(url), url, tmp_path / "backup.dump")
    assert list(tmp_path.iterdir()) == []
