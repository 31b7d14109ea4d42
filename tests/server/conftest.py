from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.databases import new_sqlite
from tests.fakes import Script
from tests.server.live import LiveServer, live_server


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> Iterator[None]:
    """Without this, structlog draws tracebacks in a box, which takes seconds each."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    )
    yield
    structlog.reset_defaults()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite database with the current schema and no rows, for what does not depend on the kind."""
    return new_sqlite(tmp_path)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[LiveServer]:
    with live_server() as server:
        yield server


@pytest.fixture
def server(shared_server: LiveServer) -> LiveServer:
    """A server with default settings, its fake backend back at its first script."""
    shared_server.backend.script = Script()
    shared_server.backend.generations.clear()
    return shared_server
