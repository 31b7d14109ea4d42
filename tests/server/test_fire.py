"""The books after servers were killed at random moments: tests/fire.py says how."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mezzo.store.database import Database
from tests.databases import PostgresServer, new_sqlite
from tests.fire import Fire, Server, judge
from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow


def burn(servers: list[Server], url: str, *, num_requests: int, num_kills: int) -> None:
    fire = Fire(servers, num_requests, num_kills)
    asyncio.run(fire.burn())
    database = Database(url)
    try:
        faults, reconciliation = judge(fire.seen, database)
    finally:
        for server in servers:
            server.stop()
        database.dispose()
    assert faults == []
    assert reconciliation.agrees, reconciliation.findings
    assert sum(one.ending == "whole" for one in fire.seen) > num_requests / 4
    assert any(one.ending == "broken" for one in fire.seen), "the kills met no request"


def test_one_server_on_sqlite(tmp_path: Path) -> None:
    url = new_sqlite(tmp_path)
    burn([Server(tmp_path, url)], url, num_requests=300, num_kills=2)


def test_two_servers_on_one_postgresql_and_redis(
    tmp_path: Path, postgres: PostgresServer, redis_server: RedisServer
) -> None:
    url = postgres.make()
    servers = [Server(tmp_path, url, redis_server.url) for _ in range(2)]
    burn(servers, url, num_requests=300, num_kills=2)
