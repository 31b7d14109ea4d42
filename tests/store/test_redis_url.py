"""URLs of Redis: those that are accepted reach the client as they were meant, others are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import ConnectionPool

from mezzo.store.url import DatabaseUrlInvalid, check_redis_url

_UNDERSTOOD = ("host", "port", "path", "username", "password", "db", "ssl_ca_certs")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://redis", {"host": "redis"}),
        ("redis://redis.internal:6380/3", {"host": "redis.internal", "port": 6380, "db": 3}),
        ("redis://[::1]:6380", {"host": "::1", "port": 6380}),
        ("redis://:sword%2Ffish@redis/0", {"host": "redis", "password": "sword/fish", "db": 0}),
        ("rediss://mezzo:swordfish@redis/", {"host": "redis", "username": "mezzo", "password": "swordfish"}),
        ("rediss://redis?ssl_ca_certs=/ca.pem", {"host": "redis", "ssl_ca_certs": "/ca.pem"}),
        ("unix:///run/redis.sock", {"path": "/run/redis.sock"}),
        (
            "unix://:swordfish@/run/redis.sock?db=2",
            {"path": "/run/redis.sock", "db": 2, "password": "swordfish"},
        ),
    ],
)
def test_accepted(url: str, expected: dict[str, Any]) -> None:
    check_redis_url(url)
    understood = ConnectionPool.from_url(url).connection_kwargs
    assert {name: understood.get(name) for name in _UNDERSTOOD if name in understood} == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "a Redis URL is redis://"),
        ("localhost:6379", "a Redis URL is redis://"),
        ("postgresql://host/name", "a Redis URL is redis://"),
        ("redis://", "names a host"),
        ("redis://:swordfish@/0", "names a host"),
        ("redis:///var/run/redis.sock", "names a host"),
        ("redis://redis:port", "port of a Redis URL"),
        ("redis://redis:70000", "port of a Redis URL"),
        ("redis://:sword/fish@redis", "port of a Redis URL"),
        ("redis://redis/mezzo", "is a number"),
        ("redis://redis/-1", "is a number"),
        ("redis://redis/0/1", "is a number"),
        ("redis://redis?db=1", "redis:// URL may have: none"),
        ("redis://redis?socket_timeout=60", "redis:// URL may have: none"),
        ("redis://redis?ssl_ca_certs=/ca.pem", "redis:// URL may have: none"),
        ("rediss://redis?nonsense=", "rediss:// URL may have: ssl_ca_certs, "),
        ("unix://run/redis.sock", "unix:///absolute/path"),
        ("unix:run/redis.sock", "unix:///absolute/path"),
        ("unix:///redis.sock?db=one", "is a number"),
        ("redis://[redis", "not a URL"),
    ],
)
def test_refused(url: str, message: str) -> None:
    with pytest.raises(DatabaseUrlInvalid, match=message):
        check_redis_url(url)
