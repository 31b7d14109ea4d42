"""`mezzo reconcile` and `mezzo backup`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from mezzo.store.database import Database
from mezzo.store.tables import spend
from mezzo.store.url import sqlite_url
from tests.cli.conftest import Run
from tests.databases import new_sqlite
from tests.metering.rows import add_organization, add_records, record, set_up

ORGANIZATION = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of books with one record."""
    url = new_sqlite(tmp_path)
    database = Database(url)
    set_up(database)
    add_organization(database, "w1", organization_id=ORGANIZATION)
    add_records(database, [record(ORGANIZATION, "w1", "2026-09-05 00:00:00+00:00")])
    database.dispose()
    return url


def test_books_that_disagree_are_told_and_the_command_fails(mezzo: Run, url: str) -> None:
    # The record was written without its sums, as nothing but a test does.
    done = mezzo("reconcile", MEZZO_DATABASE_URL=url)
    assert done.returncode == 1
    assert "FAULT spend: workspace w1 2026-09" in done.stdout
    assert "do NOT agree" in done.stdout
    found = json.loads(mezzo("reconcile", "--json", MEZZO_DATABASE_URL=url).stdout)
    assert found["agrees"] is False
    assert {finding["check"] for finding in found["findings"]} >= {"spend", "quota"}


def test_a_backup_is_a_database_that_can_be_used(mezzo: Run, url: str, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    done = mezzo("backup", str(target), MEZZO_DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    assert "Backup written" in done.stderr
    copied = mezzo("reconcile", "--json", MEZZO_DATABASE_URL=sqlite_url(target))
    assert json.loads(copied.stdout)["num_records"] == 1
    again = mezzo("backup", str(target), MEZZO_DATABASE_URL=url)
    assert again.returncode == 1
    assert "exists" in again.stderr


def test_a_database_that_is_not_there_is_one_line(mezzo: Run) -> None:
    done = mezzo("reconcile", MEZZO_DATABASE_URL="postgresql://a:geheim@127.0.0.1:1/x")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the database cannot be used")
    assert "geheim" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_sums_of_a_fresh_database_agree(mezzo: Run, tmp_path: Path) -> None:
    done = mezzo("reconcile")
    assert done.returncode == 0, done.stderr
    assert "The books agree." in done.stdout
    database = Database(sqlite_url(tmp_path / "home" / "mezzo.db"))
    with database.read() as connection:
        assert connection.execute(sa.select(spend)).all() == []
    database.dispose()
