from __future__ import annotations

import pytest

from mezzo.store.database import Database
from tests.metering.rows import new_id, set_up


@pytest.fixture(scope="module")
def books(shared_database: Database) -> Database:
    """Books in dollars with the prices of one model, shared by a module: each test has an organisation of its own."""
    set_up(shared_database)
    return shared_database


@pytest.fixture
def organization() -> str:
    """The id of an organisation that no other test has."""
    return new_id("organization")
