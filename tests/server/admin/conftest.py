"""The admin API on a real server, once over each database, and an organisation to administer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mezzo.store.database import Database
from tests.accounts.world import NOW, Organization, make_organization, set_up
from tests.databases import new_sqlite
from tests.server.admin.admin_server import AdminClient, AdminServer


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminServer]:
    if request.param == "sqlite":
        database = Database(new_sqlite(tmp_path_factory.mktemp("admin")))
    else:
        database = Database(request.getfixturevalue("postgres").make())
    set_up(database)
    running = AdminServer(database)
    running.start()
    yield running
    running.stop()
    database.dispose()


@pytest.fixture(autouse=True)
def _clock(server: AdminServer) -> None:
    server.now = NOW


@pytest.fixture
def organization(server: AdminServer) -> Organization:
    return make_organization(server.database)


@pytest.fixture
def other(server: AdminServer) -> Organization:
    return make_organization(server.database)


@pytest.fixture
def admin(server: AdminServer, organization: Organization) -> AdminClient:
    return AdminClient(server, organization.admin_key(name="ops")[1])
