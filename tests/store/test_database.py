from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import StatementError

from mezzo.store.database import Database, DatabaseUnavailable, tables
from mezzo.store.migrate import HEAD, current_revision, migrate
from mezzo.store.tables import audit_log, organizations
from mezzo.store.url import DatabaseUrlInvalid, check_url, sqlite_path, sqlite_url
from tests.databases import PostgresServer

MOMENT = datetime(2026, 9, 1, 14, 30, 15, 123456, tzinfo=timezone(timedelta(hours=2)))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A database without tables."""
    if request.param == "sqlite":
        url = sqlite_url(tmp_path / "new" / "mezzo.db")
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.make_empty()
    database = Database(url)
    yield database
    database.dispose()


class TestMigrations:
    def test_an_empty_database_gets_the_tables_of_this_version(self, empty: Database) -> None:
        empty.migrate()
        with empty.read() as connection:
            assert current_revision(connection) == HEAD
            assert compare_metadata(MigrationContext.configure(connection), tables()) == []
        empty.migrate()

    def test_the_head_is_the_newest_script(self) -> None:
        config = Config()
        config.set_main_option("script_location", "mezzo.store:migrations")
        scripts = ScriptDirectory.from_config(config)
        assert scripts.get_current_head() == HEAD

    def test_rows_survive_every_step_to_the_head(self, empty: Database) -> None:
        config = Config()
        config.set_main_option("script_location", "mezzo.store:migrations")
        revisions = [
            script.revision for script in ScriptDirectory.from_config(config).walk_revisions("base", "head")
        ]
        migrate(empty, revision=revisions[-1])
        with empty.write() as connection:
            connection.execute(sa.insert(organizations).values(id="o", name="Ö", created_at=MOMENT))
        for revision in reversed(revisions):
            migrate(empty, revision=revision)
        with empty.read() as connection:
            assert connection.execute(sa.select(organizations.c.name)).scalars().all() == ["Ö"]

    def test_a_newer_version_s_database_is_refused(self, empty: Database) -> None:
        empty.migrate()
        with empty.write() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(DatabaseUnavailable, match="newer"):
            empty.migrate()

    def test_a_database_that_is_not_there(self) -> None:
        database = Database("postgresql://mezzo:secret-password@127.0.0.1:1/nothing")
        with pytest.raises(DatabaseUnavailable) as refused:
            database.migrate()
        assert "secret-password" not in str(refused.value)


class TestTransactions:
    def test_an_exception_undoes_everything(self, database: Database) -> None:
        def fail() -> None:
            with database.write() as connection:
                connection.execute(sa.insert(organizations).values(id="o", name="O", created_at=MOMENT))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        with database.read() as connection:
            assert connection.execute(sa.select(organizations)).all() == []

    def test_a_reader_sees_one_state(self, database: Database) -> None:
        count = sa.select(sa.func.count()).select_from(organizations)
        with database.read() as reader:
            assert reader.execute(count).scalar_one() == 0
            with database.write() as connection:
                connection.execute(sa.insert(organizations).values(id="o", name="O", created_at=MOMENT))
            assert reader.execute(count).scalar_one() == 0
        with database.read() as reader:
            assert reader.execute(count).scalar_one() == 1

    def test_a_moment_comes_back_as_the_same_moment(self, database: Database) -> None:
        with database.write() as connection:
            connection.execute(sa.insert(organizations).values(id="o", name="O", created_at=MOMENT))
        with database.read() as connection:
            (found,) = connection.scalars(sa.select(organizations.c.created_at))
        assert found == MOMENT
        assert found.tzinfo is UTC

    def test_a_moment_without_a_zone_is_refused(self, database: Database) -> None:
        statement = sa.insert(organizations).values(id="o", name="O", created_at=MOMENT.replace(tzinfo=None))
        with pytest.raises(StatementError, match="no time zone"), database.write() as connection:
            connection.execute(statement)

    def test_log_ids_grow(self, database: Database) -> None:
        entry = {
            "created_at": MOMENT,
            "organization_id": "o",
            "actor_type": "OTHER",
            "actor_metadata": {},
            "event_type": "x",
            "event_metadata": {},
            "target_type": "X",
            "target_metadata": {"name": "ä"},
        }
        with database.write() as connection:
            connection.execute(sa.insert(audit_log), [entry, entry])
        with database.read() as connection:
            assert list(connection.scalars(sa.select(audit_log.c.id).order_by(audit_log.c.id))) == [1, 2]


def test_a_new_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "mezzo.db"
    database = Database(sqlite_url(path))
    database.migrate()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    database.dispose()


class TestUrls:
    def test_a_path_survives_its_url(self, tmp_path: Path) -> None:
        path = tmp_path / "with space & %20" / "mezzo.db"
        assert sqlite_path(sqlite_url(path)) == path

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "mezzo.db",
            "sqlite://",
            "sqlite:///:memory:",
            "sqlite://host/x",
            "mysql://u:hunter2@h/x",
            "http://x",
        ],
    )
    def test_what_is_no_database_is_refused_without_being_shown(self, url: str) -> None:
        with pytest.raises(DatabaseUrlInvalid) as refused:
            check_url(url)
        assert "hunter2" not in str(refused.value)
