"""Servers that are killed again and again while many clients ask, stream, hang up and try again; then the books.

`python -m tests.fire --requests 5000 --kills 25` puts thousands through it; tests/server/test_fire.py a few hundred.
The backend is a fake: one token is one byte of the answer, so a client counts its own tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import sqlalchemy as sa

from mezzo.metering.reconcile import Reconciliation, reconcile
from mezzo.store.database import Database
from mezzo.store.tables import open_requests, usage_records
from tests.databases import new_sqlite

REPOSITORY = Path(__file__).parents[1]
KEY = "mz-test-key-0123456789"
SCRIPT = {"text": "abcdefghijklmnopqrstuvwxyz0123456789", "step_tokens": 3, "step_s": 0.004}
NUM_TOKENS = len(SCRIPT["text"])
PROMPT = "Hi"

Ending = Literal["whole", "left", "broken"]


@dataclass
class Seen:
    """What a client knows of one request. num_tokens: those that it received. key: its idempotency key."""

    ending: Ending
    id: str | None = None
    num_tokens: int = 0
    key: str | None = None


@dataclass
class Server:
    """A server process on a port of its own, started again after each kill."""

    folder: Path
    database_url: str
    redis_url: str | None = None
    port: int = 0
    process: subprocess.Popen[str] | None = None
    num_kills: int = 0

    def start(self) -> None:
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        settings = {
            "home": str(self.folder),
            "database_url": self.database_url,
            "port": self.port,
            "secret_key": "s" * 43,
            "redis_url": self.redis_url,
            # Far above what comes, so that every request is counted and none refused.
            "requests_per_minute": 1_000_000 if self.redis_url else None,
            "tokens_per_minute": 1_000_000_000 if self.redis_url else None,
        }
        options = {"script": SCRIPT, "settings": settings}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.serve_fake", json.dumps(options)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": "src"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        for line in self.process.stdout or ():
            if json.loads(line)["event"] == "ready":
                return
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self._reap()
        self.num_kills += 1

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self._reap()

    def _reap(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.wait(30)
        self.process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/chat/completions"


@dataclass
class Fire:
    """One run: clients that share a stock of requests, and a killer."""

    servers: list[Server]
    num_requests: int
    num_kills: int
    num_clients: int = 24
    seed: int = 0
    seen: list[Seen] = field(default_factory=list)

    async def burn(self) -> None:
        self._rng = random.Random(self.seed)
        self._left = self.num_requests
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in self.servers))
        clients = [asyncio.create_task(self._client()) for _ in range(self.num_clients)]
        killing = asyncio.create_task(self._kill())
        await asyncio.gather(*clients)
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
        for server in self.servers:
            if server.process is None or server.process.poll() is not None:
                await asyncio.to_thread(server.start)

    async def _kill(self) -> None:
        for number in range(self.num_kills):
            # Spread over the run by what is left of it, so that every kill finds work.
            due = self.num_requests * (1 - (number + 1) / (self.num_kills + 1))
            while self._left > due:  # noqa: ASYNC110  an event for each number would say less
                await asyncio.sleep(0.005)
            await asyncio.sleep(self._rng.random() * 0.1)
            server = self._rng.choice(self.servers)
            server.kill()
            await asyncio.to_thread(server.start)

    async def _client(self) -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=30) as http:
            while self._left > 0:
                self._left -= 1
                kind = self._rng.choice(["json", "stream", "leave", "keyed"])
                if kind == "keyed":
                    self.seen.append(await self._until_answered(http))
                else:
                    self.seen.append(await self._ask(http, kind))
                if self.seen[-1].ending == "broken":
                    await asyncio.sleep(0.05)

    async def _until_answered(self, http: httpx.AsyncClient) -> Seen:
        """Send a call with a key until its answer has come whole, as a client does whose connection breaks."""
        key = f"key-{self._rng.random()}"
        while True:
            seen = await self._ask(http, self._rng.choice(["json", "leave-json"]), key)
            if seen.ending == "whole":
                return seen
            await asyncio.sleep(0.05)

    async def _ask(self, http: httpx.AsyncClient, kind: str, key: str | None = None) -> Seen:
        body = {"model": "mistral-medium-latest", "messages": [{"role": "user", "content": PROMPT}]}
        headers = {"idempotency-key": key} if key else {}
        url = self._rng.choice(self.servers).url
        seen = Seen("broken", key=key)
        try:
            if "json" in kind:
                timeout = 0.02 if kind == "leave-json" else 30
                answer = await http.post(url, json=body, headers=headers, timeout=timeout)
                if answer.status_code == 200:
                    self._note_whole(seen, answer.json())
            else:
                stop_after = self._rng.randrange(1, NUM_TOKENS) if kind == "leave" else None
                await self._stream(http, url, body, seen, stop_after)
        except httpx.TransportError:
            pass
        return seen

    @staticmethod
    def _note_whole(seen: Seen, answer: dict[str, Any]) -> None:
        seen.ending, seen.id, seen.num_tokens = "whole", answer["id"], answer["usage"]["completion_tokens"]

    @staticmethod
    async def _stream(
        http: httpx.AsyncClient, url: str, body: dict[str, Any], seen: Seen, stop_after: int | None
    ) -> None:
        async with http.stream("POST", url, json=body | {"stream": True}) as response:
            if response.status_code != 200:
                return
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                choice = chunk["choices"][0]
                seen.id = chunk["id"]
                seen.num_tokens += len(choice["delta"].get("content") or "")
                if choice["finish_reason"] == "stop":
                    seen.ending = "whole"  # the end is known before the connection has closed
                elif stop_after is not None and seen.num_tokens >= stop_after:
                    seen.ending = "left"
                    return


def judge(seen: list[Seen], database: Database, timeout_s: float = 20) -> tuple[list[str], Reconciliation]:
    """Wait until nothing is in flight; return what in the books contradicts the clients, and the reconciliation."""
    deadline = time.monotonic() + timeout_s
    while True:
        with database.read() as connection:
            if not connection.execute(sa.select(sa.func.count()).select_from(open_requests)).scalar_one():
                break
        if time.monotonic() > deadline:
            return ["requests stayed in flight"], Reconciliation(0, 0, 0, 0, ())
        time.sleep(0.1)
    with database.read() as connection:
        rows = {row.id: row for row in connection.execute(sa.select(usage_records))}
        reconciliation = reconcile(connection)
    faults = [fault for one in seen for fault in _contradictions(one, rows)]
    answered = Counter(one.key for one in seen if one.key and one.ending == "whole")
    faults += [f"{key} was answered {count} times" for key, count in answered.items() if count > 1]
    known = sum(one.id is not None for one in seen)
    faults += (
        [] if len(rows) >= known else [f"{known} requests are known to clients, and {len(rows)} to the books"]
    )
    return faults, reconciliation


def _contradictions(one: Seen, rows: dict[str, Any]) -> list[str]:
    if one.id is None:
        return []  # never answered: the client cannot know whether it was admitted
    row = rows.get(one.id)
    if row is None:
        return [f"{one.id} ({one.ending}) is not in the books"]
    charged = (
        (row.prompt_tokens * 400 + row.completion_tokens * 2000)
        if row.status in {"finished", "aborted"}
        else 0
    )
    faults = [] if row.amount == charged else [f"{one.id} ({row.status}) cost {row.amount}, not {charged}"]
    if one.ending == "whole" and (row.status, row.completion_tokens) != ("finished", one.num_tokens):
        faults.append(
            f"{one.id} came whole with {one.num_tokens} tokens: {row.status}, {row.completion_tokens}"
        )
    if one.ending == "left" and row.status == "aborted" and row.completion_tokens < one.num_tokens:
        faults.append(f"{one.id} was left after {one.num_tokens} tokens, and charged {row.completion_tokens}")
    if one.ending == "left" and row.status not in {"aborted", "finished", "interrupted"}:
        faults.append(f"{one.id} was left by its client, and is {row.status}")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--database-url", help="An empty PostgreSQL database; SQLite if left out.")
    parser.add_argument("--redis-url")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.database_url or new_sqlite(Path(folder))
        servers = [Server(Path(folder), url, options.redis_url) for _ in range(options.servers)]
        fire = Fire(servers, options.requests, options.kills, seed=options.seed)
        began_s = time.monotonic()
        asyncio.run(fire.burn())
        burned_s = time.monotonic() - began_s
        database = Database(url)
        faults, reconciliation = judge(fire.seen, database)
        for server in servers:
            server.stop()
        with database.read() as connection:
            by_status = dict(
                connection.execute(
                    sa.select(usage_records.c.status, sa.func.count()).group_by(usage_records.c.status)
                ).all()
            )
        database.dispose()
    num_kills = sum(server.num_kills for server in servers)
    endings = dict(Counter(one.ending for one in fire.seen))
    print(
        f"{len(fire.seen)} requests in {burned_s:.0f} s, {num_kills} kills; clients: {endings}; books: {by_status}"
    )
    for finding in reconciliation.findings:
        print(f"{'FAULT' if finding.is_fault else 'note'} {finding.check}: {finding.message}")
    for fault in faults:
        print("FAULT", fault)
    sys.exit(bool(faults) or not reconciliation.agrees)


if __name__ == "__main__":
    main()
