"""Servers that several files share: a mezzo behind a mezzo, and a scripted server behind another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from tests.backends.fronts import ALL, front_of
from tests.backends.scripted_upstream import (
    OPENAI_MODELS,
    ScriptedUpstream,
    scripted_upstream,
)
from tests.fakes import FakeBackend, Script
from tests.server.live import (
    KEY,
    MODEL,
    LiveServer,
    live_server,
)


@pytest.fixture(scope="module", autouse=True)
def _plain_logs() -> Iterator[None]:
    """Without this, structlog draws tracebacks in a box, which takes seconds each."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    )
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def shared_behind() -> Iterator[LiveServer]:
    with live_server(FakeBackend(capabilities=ALL)) as server:
        yield server


@pytest.fixture
def behind(shared_behind: LiveServer) -> LiveServer:
    """A mezzo with a fake backend at its first script: the upstream."""
    shared_behind.backend.script = Script()
    shared_behind.backend.generations.clear()
    return shared_behind


@pytest.fixture(scope="module")
def front(shared_behind: LiveServer) -> Iterator[LiveServer]:
    with front_of(shared_behind.url + "/v1", model=MODEL, api_key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def shared_scripted() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as upstream:
        upstream.models = OPENAI_MODELS
        yield upstream


@pytest.fixture(scope="module")
def openai_front(shared_scripted: ScriptedUpstream) -> Iterator[LiveServer]:
    with front_of(shared_scripted.base_url) as server:
        yield server


@pytest.fixture
def scripted(shared_scripted: ScriptedUpstream) -> ScriptedUpstream:
    """A server of OpenAI's dialect that has said nothing yet, behind `openai_front`."""
    shared_scripted.script, shared_scripted.body, shared_scripted.status = [], None, 200
    shared_scripted.bodies.clear()
    shared_scripted.heads.clear()
    shared_scripted.hung_up.clear()
    return shared_scripted
