"""A real `mezzo serve` process with the real nano weights, and what it looks like from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from mezzo.metering.reconcile import Reconciliation, reconcile
from mezzo.store.database import Database
from mezzo.store.tables import usage_records
from mezzo.store.url import sqlite_url

KEY = "mz-sdk-test-key-0123456789"
MODEL = "mistral-medium-latest"
MODEL_ID = "mistral-medium-2505"
CONTEXT = 8192
# What nano answers greedily with hundreds of tokens.
ENDLESS = "Write a long story about a {}."
SUBJECTS = ["horse", "king", "ship", "robot"]
_SOURCES = Path(__file__).parents[2] / "src"


class Serving:
    """A running server process. `client` is an httpx client with its key."""

    def __init__(self, home: Path, folder: Path, **settings: object) -> None:
        """Start it and wait until it answers. `settings` by name, e.g. max_queue=1; `folder` is where it runs."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MEZZO_")}
        # One thread and a small cache: what is tested here does not depend on either, and machines are shared.
        chosen = {
            "home": home,
            "database_url": sqlite_url(folder / "mezzo.db"),
            "api_key": KEY,
            "secret_key": "s" * 43,
            "threads": 1,
            "kv_cache_tokens": 32768,
        } | settings
        environment |= {f"MEZZO_{name.upper()}": str(value) for name, value in chosen.items()}
        self.database_url = str(chosen["database_url"])
        self.log = folder / "server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mezzo", "serve", "--port", "0"],
                env=environment | {"PYTHONPATH": str(_SOURCES)},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.url = self._read_url()
        self.client = httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=120, trust_env=False
        )
        assert self.client.get("/readyz").status_code == 200

    def post(self, body: Any, **options: Any) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json=body, **options)

    def metric(self, name: str) -> float:
        """Return a figure of the server's only weights."""
        text = self.client.get("/metrics").text
        (value,) = re.findall(rf'^{name}\{{weights="nano"\}} (\S+)$', text, re.MULTILINE)
        return float(value)

    def is_idle(self) -> bool:
        """Tell whether no sequence runs or waits and every block of the KV cache is free."""
        names = (
            "mezzo_requests_waiting",
            "mezzo_sequences_running",
            "mezzo_sequences_waiting",
            "mezzo_kv_cache_used_blocks",
        )
        return not any(self.metric(name) for name in names)

    def engine_pids(self) -> list[int]:
        """Return the process ids of the engines that live in this server's session, orphans too."""
        return [p.pid for p in self.processes() if "mezzo.engine.worker" in p.command]

    def processes(self) -> list[Process]:
        """Return the processes of this server's session, those that ended and were not reaped included."""
        return [process for process in _all_processes() if process.group == self.process.pid]

    def books(self) -> tuple[list[Any], Reconciliation]:
        """Return the usage records in order, and what reconciling them with the engines' counts finds."""
        database = Database(self.database_url)
        with database.read() as connection:
            rows = list(connection.execute(sa.select(usage_records).order_by(usage_records.c.created_at)))
            found = reconcile(connection)
        database.dispose()
        return rows, found

    def stop(self) -> None:
        """End it as a service manager does, or by force if that does not help."""
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                raise
        self.process.stdout.close()

    def _read_url(self) -> str:
        url = ""
        for line in self.process.stdout:
            if line.startswith("  URL "):
                url = line.split()[1]
            if "Ctrl-C stops the server" in line:
                return url
        raise AssertionError(f"the server ended early: {self.log.read_text()}")


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    group: int
    state: str
    command: str


def _all_processes() -> list[Process]:
    columns = ["ps", "-A", "-ww", "-o", "pid=,ppid=,pgid=,stat=,args="]
    rows = subprocess.run(columns, capture_output=True, text=True, check=True).stdout.splitlines()
    split = [row.split(None, 4) for row in rows]
    return [Process(int(r[0]), int(r[1]), int(r[2]), r[3], r[4] if len(r) > 4 else "") for r in split]


@contextmanager
def serving(home: Path, folder: Path, **settings: object) -> Iterator[Serving]:
    server = Serving(home, folder, **settings)
    try:
        yield server
    finally:
        server.stop()


def chat(content: str = "Tell me about rivers.", **fields: Any) -> dict[str, Any]:
    """Return a greedy chat request of a few tokens."""
    messages = [{"role": "user", "content": content}]
    return {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 8, **fields}


@dataclass
class Streamed:
    """What came of one streamed request.

    chunks: the JSON of the events; times_s: when each arrived, on the monotonic clock.
    """

    status: int
    chunks: list[dict[str, Any]]
    times_s: list[float]
    ended: bool = False
    body: Any = None

    @property
    def text(self) -> str:
        return "".join(chunk["choices"][0]["delta"]["content"] for chunk in self.chunks)

    @property
    def finish_reason(self) -> str | None:
        return self.chunks[-1]["choices"][0]["finish_reason"]


def stream(
    server: Serving, body: dict[str, Any], on_chunk: Callable[[Streamed], None] = lambda streamed: None
) -> Streamed:
    """Read one stream to its end, calling `on_chunk` after each event."""
    with (
        httpx.Client(headers=server.client.headers, timeout=120, trust_env=False) as client,
        client.stream("POST", server.url + "/v1/chat/completions", json=body | {"stream": True}) as response,
    ):
        streamed = Streamed(response.status_code, [], [])
        if response.status_code != 200:
            streamed.body = json.loads(response.read())
            return streamed
        for line in response.iter_lines():
            if not line.startswith("data: "):
                continue
            assert not streamed.ended, "an event after [DONE]"
            if line == "data: [DONE]":
                streamed.ended = True
            else:
                streamed.chunks.append(json.loads(line.removeprefix("data: ")))
                streamed.times_s.append(time.monotonic())
                on_chunk(streamed)
        return streamed


def wait_until(condition: Callable[[], object], timeout_s: float = 2) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
