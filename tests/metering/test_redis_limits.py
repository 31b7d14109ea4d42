"""Limits in a real Redis: shared between servers, and what happens when it stops, hangs or refuses."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from mezzo.accounts.access import RateLimits
from mezzo.metering.limits import LimitExceeded, LimitState
from mezzo.metering.redis_limits import PAUSE_S, TIMEOUT_S, RedisLimits
from tests.redis_server import PATIENT_S, RedisServer

Connect = Callable[..., RedisLimits]
# Beyond the timeout: what a busy machine may take.
SLACK_S = 1.0

SERVER = """
import asyncio, sys
from mezzo.accounts.access import RateLimits
from mezzo.metering.limits import LimitExceeded
from mezzo.metering.redis_limits import RedisLimits

async def main(url, num_requests):
    limiter, num_admitted = RedisLimits(url, timeout_s=10), 0
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(num_requests)):
        try:
            await limiter.admit("two-servers", "m", RateLimits(50))
            num_admitted += 1
        except LimitExceeded:
            pass
    print(num_admitted, limiter.is_degraded)
    await limiter.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Makes patient limiters, which are closed after the test."""
    async with contextlib.AsyncExitStack() as stack:

        def connect(url: str, **options: Any) -> RedisLimits:
            limiter = RedisLimits(url, **{"timeout_s": PATIENT_S, **options})
            stack.push_async_callback(limiter.aclose)
            return limiter

        yield connect


@pytest.fixture
def limiter(own_redis: RedisServer, connect: Connect) -> RedisLimits:
    """A limiter on a Redis that the test may stop."""
    return connect(own_redis.url)


async def num_admitted(limiter: RedisLimits, workspace_id: str, num_requests: int, limit: int) -> int:
    """Return how many of as many requests pass."""
    num = 0
    for _ in range(num_requests):
        try:
            await limiter.admit(workspace_id, "m", RateLimits(limit))
            num += 1
        except LimitExceeded:
            pass
    return num


class TestSharing:
    async def test_two_server_processes_share_one_limit(self, redis_server: RedisServer) -> None:
        servers = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", SERVER, redis_server.url, "40"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for _ in range(2)
        ]
        for server in servers:
            assert server.stdout is not None
            assert await server.stdout.readline() == b"ready\n"
        outputs = await asyncio.gather(*(server.communicate(b"\n") for server in servers))
        counts = [output.split() for output, _ in outputs]
        assert [is_degraded for _, is_degraded in counts] == [b"False", b"False"]
        assert sum(int(num) for num, _ in counts) == 50
        assert all(int(num) for num, _ in counts)

    async def test_a_charge_on_one_server_refuses_on_the_other(
        self, redis_server: RedisServer, connect: Connect
    ) -> None:
        one, other = connect(redis_server.url), connect(redis_server.socket_url)
        limits = RateLimits(tokens_per_minute=100)
        assert await one.charge("charged", "m", limits, 100) == LimitState(None, None, 100, 0)
        with pytest.raises(LimitExceeded) as refused:
            await other.admit("charged", "m", limits)
        assert refused.value.retry_after_s in {60, 61}
        assert not other.is_degraded

    async def test_the_time_is_that_of_redis(self, redis_server: RedisServer, connect: Connect) -> None:
        # One server whose clock is slow by most of a minute, and one that asks Redis, on the same machine.
        slow = connect(redis_server.url, clock=lambda: time.time() - 59.3)
        limiter = connect(redis_server.url)
        await slow.admit("time", "m", RateLimits(1))
        with pytest.raises(LimitExceeded) as refused:
            await limiter.admit("time", "m", RateLimits(1))
        assert refused.value.retry_after_s == 1
        await asyncio.sleep(refused.value.retry_after_s)
        await limiter.admit("time", "m", RateLimits(1))


class TestKeys:
    async def test_every_key_is_ours_and_expires_when_nothing_counts_any_more(
        self, own_redis: RedisServer, limiter: RedisLimits
    ) -> None:
        limits = RateLimits(5, 100)
        await limiter.admit("w", "a/model:1", limits)
        await limiter.charge("w", "a/model:1", limits, 7)
        with own_redis.client() as client:
            keys = client.keys()
            assert sorted(keys) == [
                "mezzo:limits:{w:a%2Fmodel%3A1}:requests",
                "mezzo:limits:{w:a%2Fmodel%3A1}:tokens",
            ]
            # Two slots of a tenth more than the 60 s.
            assert all(60_000 < client.pttl(key) <= 60_200 for key in keys)

    async def test_a_refusal_does_not_prolong_a_key(
        self, own_redis: RedisServer, limiter: RedisLimits
    ) -> None:
        assert await num_admitted(limiter, "w", 1, 1) == 1
        with own_redis.client() as client:
            (key,) = client.keys()
            client.pexpire(key, 5000)
            assert await num_admitted(limiter, "w", 1, 1) == 0
            assert client.pttl(key) <= 5000

    async def test_a_busy_window_is_bounded(self, own_redis: RedisServer, connect: Connect) -> None:
        now = 0.0
        limiter = connect(own_redis.url, clock=lambda: now)
        for number in range(1400):
            now = number / 20
            await limiter.charge("w", "m", RateLimits(None, 10**13), 10**9)
        state = await limiter.charge("w", "m", RateLimits(None, 10**13), 0)
        # At 69.95 counts what is from 9.9 on: 1201 charges and a half, two in each slot.
        assert state.remaining_tokens == 10**13 - 1202 * 10**9
        with own_redis.client() as client:
            (key,) = client.keys()
            assert client.llen(key) == 1 + 2 * 601


class TestClockSetBack:
    async def test_a_little_frees_nothing(self, redis_server: RedisServer, connect: Connect) -> None:
        now = 1000.0
        limiter = connect(redis_server.url, clock=lambda: now)
        await limiter.admit("back", "m", RateLimits(1))
        now = 970.0
        with pytest.raises(LimitExceeded):
            await limiter.admit("back", "m", RateLimits(1))
        now = 1060.1
        await limiter.admit("back", "m", RateLimits(1))

    async def test_by_an_hour_lets_nobody_wait_for_an_hour(
        self, redis_server: RedisServer, connect: Connect
    ) -> None:
        now = 5000.0
        limiter = connect(redis_server.url, clock=lambda: now)
        assert await num_admitted(limiter, "hour", 5, 2) == 2
        now = 1400.0
        assert await num_admitted(limiter, "hour", 5, 2) == 2
        now = 1460.1
        assert await num_admitted(limiter, "hour", 5, 2) == 2

    async def test_by_a_little_again_and_again_neither(
        self, redis_server: RedisServer, connect: Connect
    ) -> None:
        now = 1000.0
        limiter = connect(redis_server.url, clock=lambda: now)
        await limiter.admit("again", "m", RateLimits(3))
        now = 941.0
        await limiter.admit("again", "m", RateLimits(3))
        now = 882.0
        assert await num_admitted(limiter, "again", 5, 3) == 3


class TestWithoutRedis:
    async def test_a_server_counts_alone_until_redis_is_back(
        self, own_redis: RedisServer, limiter: RedisLimits
    ) -> None:
        assert await num_admitted(limiter, "w", 5, 3) == 3
        own_redis.stop()
        with capture_logs() as logs:
            assert await num_admitted(limiter, "w", 5, 3) == 3  # from none: what Redis knew is out of reach
            assert limiter.is_degraded
            own_redis.start()
            await asyncio.sleep(PAUSE_S)
            assert await num_admitted(limiter, "w", 5, 3) == 3
            assert not limiter.is_degraded
        with own_redis.client() as client:
            assert client.keys() == ["mezzo:limits:{w:m}:requests"]
        assert [(log["log_level"], log.get("reason")) for log in logs] == [
            ("warning", "ConnectionError"),
            ("info", None),
        ]

    async def test_a_restart_between_two_calls_is_not_noticed(
        self, own_redis: RedisServer, limiter: RedisLimits
    ) -> None:
        await limiter.admit("w", "m", RateLimits(3))
        own_redis.stop()
        own_redis.start()
        await asyncio.sleep(0.05)  # for this loop to hear that the connection was closed
        assert (await limiter.admit("w", "m", RateLimits(3))).remaining_requests == 2
        assert not limiter.is_degraded

    async def test_no_call_hangs_while_redis_does(self, own_redis: RedisServer, connect: Connect) -> None:
        limiter, limits = connect(own_redis.url, timeout_s=TIMEOUT_S), RateLimits(100)
        await limiter.admit("w", "m", limits)
        own_redis.hang()
        started = time.monotonic()
        together = [limiter.admit("w", "m", limits) for _ in range(20)]
        states = await asyncio.gather(*together)
        assert TIMEOUT_S <= time.monotonic() - started < TIMEOUT_S + SLACK_S
        assert min(state.remaining_requests or 0 for state in states) == 80
        # Nobody asks for a second.
        started = time.monotonic()
        for _ in range(20):
            await limiter.admit("w", "m", limits)
        assert time.monotonic() - started < SLACK_S
        await asyncio.sleep(PAUSE_S)
        # Then one does, and the others do not wait for it.
        probe = asyncio.create_task(limiter.admit("w", "m", limits))
        await asyncio.sleep(0)
        await limiter.admit("w", "m", limits)
        assert not probe.done()
        await probe
        own_redis.resume()
        while limiter.is_degraded:
            await asyncio.sleep(PAUSE_S)
            # What the hung server answers late is for nobody.
            state = await limiter.admit("other", "m", RateLimits(7))
        assert state == LimitState(7, 6, None, None)

    async def test_a_call_that_comes_during_a_failure_does_not_wait_for_another(
        self, own_redis: RedisServer, connect: Connect
    ) -> None:
        limiter, limits = connect(own_redis.url, timeout_s=1.0), RateLimits(100)
        own_redis.hang()
        first = asyncio.create_task(limiter.admit("w", "m", limits))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(limiter.admit("w", "m", limits))
        await first
        failed_at = time.monotonic()
        await second
        assert time.monotonic() - failed_at < 0.5
        own_redis.resume()

    async def test_one_warning_a_minute_however_often_it_fails(self, connect: Connect) -> None:
        limiter = connect("redis://:swordfish@127.0.0.1:1/0", pause_s=0)
        with capture_logs() as logs:
            for _ in range(3):
                await limiter.admit("w", "m", RateLimits(5))
        assert len(logs) == 1
        assert "swordfish" not in str(logs)

    async def test_a_refused_password_is_a_failure_and_stays_secret(self, connect: Connect) -> None:
        server = RedisServer(password="swordfish")
        try:
            good = connect(server.url)
            bad = connect(server.url.replace("swordfish", "marlin"))
            with capture_logs() as logs:
                await good.admit("w", "m", RateLimits(5))
                await bad.admit("w", "m", RateLimits(5))
            assert (good.is_degraded, bad.is_degraded) == (False, True)
            assert [log["reason"] for log in logs] == ["AuthenticationError"]
            assert "swordfish" not in str(logs)
            assert "marlin" not in str(logs)
        finally:
            server.remove()

    async def test_a_key_that_is_something_else_is_a_failure(
        self, own_redis: RedisServer, limiter: RedisLimits
    ) -> None:
        with own_redis.client() as client:
            client.set("mezzo:limits:{w:m}:requests", "somebody's")
        with capture_logs() as logs:
            assert (await limiter.admit("w", "m", RateLimits(5))).remaining_requests == 4
        assert limiter.is_degraded
        assert [log["reason"] for log in logs] == ["ResponseError"]

    async def test_a_client_that_leaves_breaks_off_nothing_of_others(self, limiter: RedisLimits) -> None:
        limits = RateLimits(100)
        await limiter.admit("w", "m", limits)
        leaving = asyncio.create_task(limiter.admit("w", "m", limits))
        staying = [asyncio.create_task(limiter.admit("w", "m", limits)) for _ in range(5)]
        await asyncio.sleep(0)
        leaving.cancel()
        states = await asyncio.gather(*staying)
        # The first, the one that left, and five.
        assert min(state.remaining_requests or 0 for state in states) == 93
        assert leaving.cancelled()
        assert not limiter.is_degraded
