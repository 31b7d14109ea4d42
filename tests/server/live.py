"""A real server on a free loopback port, in a thread, in front of a FakeBackend; and the shapes of errors."""

from __future__ import annotations

import asyncio
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
import uvloop

from mezzo.accounts.audit import OPERATOR
from mezzo.accounts.keys import create_admin_key, create_key
from mezzo.backends.router import Router
from mezzo.kit.ids import new_uuid
from mezzo.server.app import create_app
from mezzo.server.run import listen, url_of
from mezzo.server.services import make_services
from mezzo.server.uvicorn_server import ApiServer
from mezzo.settings import Settings
from mezzo.store.tables import workspaces
from tests.databases import new_sqlite
from tests.fakes import FakeBackend

KEY = "mz-test-key-0123456789"
NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
MODEL = "mistral-medium-latest"
MODEL_ID = "mistral-medium-2505"
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class LiveServer:
    """A running server. `client` is an httpx client with its key; `now` is what its clock says."""

    def __init__(self, backend: FakeBackend, **settings: Any) -> None:
        self.backend = backend
        self.now = NOW
        self._folder = tempfile.TemporaryDirectory()
        home = Path(self._folder.name)
        given = {"home": home, "database_url": new_sqlite(home)} | settings
        self.settings = Settings(port=0, api_key=KEY, **given)
        router = Router({MODEL_ID: backend})
        self.services = make_services(self.settings, router, clock=lambda: self.now)
        app = create_app(self.settings, self.services)
        self.gateway = app.gateway
        self._router = router
        self._server = ApiServer(app, self.settings)
        self._listener = listen("127.0.0.1", 0)
        self.url = url_of(self._listener)
        self.port = self._listener.getsockname()[1]
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), name="server")
        self.client = httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=20, trust_env=False
        )

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def request_stop(self) -> None:
        self._server.should_exit = True

    def stop(self, timeout_s: float = 15) -> None:
        self.client.close()
        self.request_stop()
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the server did not stop"
        self._folder.cleanup()

    def post(self, body: Any = None, **options: Any) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json=body, **options)

    def rows(self, table: sa.Table) -> list[Any]:
        """Return what the database holds at this moment."""
        with self.services.database.read() as connection:
            return list(connection.execute(sa.select(table)))

    def make_key(
        self, *, workspace_id: str | None = None, monthly_limit: int | None = None, admin: bool = False
    ) -> str:
        """Return the secret of a new key, of the default workspace unless another is named."""
        made = self.services.installation
        with self.services.database.write() as connection:
            if admin:
                return create_admin_key(
                    connection, organization_id=made.organization_id, actor=OPERATOR, now=NOW
                )[1]
            return create_key(
                connection,
                organization_id=made.organization_id,
                workspace_id=workspace_id or made.workspace_id,
                user_id=None,
                monthly_limit=monthly_limit,
                actor=OPERATOR,
                now=NOW,
            )[1]

    def make_workspace(self, name: str = "Other", **columns: Any) -> str:
        """Return the id of a new workspace."""
        workspace_id = new_uuid()
        with self.services.database.write() as connection:
            connection.execute(
                sa.insert(workspaces).values(
                    {
                        "id": workspace_id,
                        "organization_id": self.services.installation.organization_id,
                        "name": name,
                        "is_default": False,
                        "has_priority": False,
                        "created_at": NOW,
                    }
                    | columns
                )
            )
        return workspace_id

    def metric(self, name: str, **labels: str) -> float:
        text = httpx.get(self.url + "/metrics", trust_env=False).text
        for line in text.splitlines():
            match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if match and dict(re.findall(r'(\w+)="([^"]*)"', match[1] or "")).items() >= labels.items():
                return float(match[2])
        return 0.0

    async def _run(self) -> None:
        await self._router.start()
        await self.services.start()
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.005)
        self._ready.set()
        await serving
        await self._router.stop()
        await self.services.stop()


@contextmanager
def live_server(backend: FakeBackend | None = None, **settings: Any) -> Iterator[LiveServer]:
    server = LiveServer(backend or FakeBackend(), **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def chat(content: str | list[dict[str, Any]] = "Hi", **fields: Any) -> dict[str, Any]:
    """Return a chat request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **fields}


def assert_error(response: httpx.Response, status: int, **expected: Any) -> Any:
    """Check that an answer is an error in one of the API's four shapes, and return its body.

    expected: values of the domain shape, or of its one-line relatives.
    """
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert UUID7.fullmatch(response.headers["mistral-correlation-id"])
    body = response.json()
    if status == 422:
        assert list(body) == ["detail"]
        assert body["detail"]
        for item in body["detail"]:
            assert {"type", "loc", "msg"} <= item.keys() <= {"type", "loc", "msg", "input", "ctx"}
            assert item["loc"][0] == "body"
            assert isinstance(item.get("ctx", {}), dict)
    elif "detail" in body:
        assert list(body) == ["detail"]
        assert isinstance(body["detail"], str)
    elif "request_id" in body:
        assert list(body) == ["message", "request_id"]
        assert body["message"] == "no Route matched with those values"
        assert re.fullmatch(r"[0-9a-f]{32}", body["request_id"])
    else:
        assert list(body) == ["object", "message", "type", "param", "code", "raw_status_code"]
        assert body["object"] == "error"
        assert body["raw_status_code"] == status
        assert body["code"] is None or re.fullmatch(r"[0-9]+", body["code"])
    for name, value in expected.items():
        assert body[name] == value, body
    return body


def wait_until(condition: Callable[[], object], timeout_s: float = 2) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def wait_for_record(logs: Sequence[Mapping[str, Any]], **fields: Any) -> Mapping[str, Any]:
    """Return the one request record with these fields; it is written a moment after the answer was sent."""

    def matching() -> list[Mapping[str, Any]]:
        return [
            entry for entry in list(logs) if entry["event"] == "request" and fields.items() <= entry.items()
        ]

    wait_until(matching)
    (record,) = matching()
    return record


def events_of(text: str) -> list[str]:
    """Return the data of each event of a stream, having checked its framing."""
    assert text.endswith("\n\n")
    events = []
    for frame in text.removesuffix("\n\n").split("\n\n"):
        if frame == ": ping":
            continue
        assert frame.startswith("data: ")
        assert "\n" not in frame
        events.append(frame.removeprefix("data: "))
    return events
