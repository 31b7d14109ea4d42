from __future__ import annotations

from collections.abc import Iterator

import pytest

from mezzo.store.database import Database
from tests.accounts.world import Organization, make_organization, set_up
from tests.databases import new_sqlite


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shared_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database of each kind for tests that keep to organisations of their own: an empty one each takes a second."""
    if request.param == "sqlite":
        database = Database(new_sqlite(tmp_path_factory.mktemp("shared")))
    else:
        database = Database(request.getfixturevalue("postgres").make())
    set_up(database)
    yield database
    database.dispose()


@pytest.fixture
def organization(shared_database: Database) -> Organization:
    """An organisation that nothing happened in; a test runs on each kind of database."""
    return make_organization(shared_database)


@pytest.fixture
def other(shared_database: Database) -> Organization:
    """A second organisation in the same database."""
    return make_organization(shared_database)
