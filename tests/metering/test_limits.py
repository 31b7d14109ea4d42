"""Sliding-window limits by hand-made scenes, each on the limiter in this process and on the one in a real Redis."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable

import pytest
from pydantic import SecretStr

from mezzo.accounts.access import RateLimits
from mezzo.metering.limits import (
    UNLIMITED,
    InProcessLimits,
    LimitExceeded,
    LimitState,
    RateLimiter,
    make_limiter,
)
from mezzo.metering.redis_limits import RedisLimits
from mezzo.settings import Settings
from tests.redis_server import PATIENT_S, RedisServer

_numbers = itertools.count()


class Scene:
    """A limiter, a clock that stands until it is set, and workspaces that no other test counts."""

    def __init__(self, make: Callable[[Callable[[], float]], RateLimiter]) -> None:
        self.now = 0.0
        self.limits = RateLimits()
        self.limiter = make(self._time)
        self.runs_since: float | None = None
        self._name = f"scene-{next(_numbers)}-"

    def run(self, now: float) -> None:
        """Let the clock run from a time on."""
        self.now, self.runs_since = now, time.monotonic()

    def _time(self) -> float:
        return self.now + (0.0 if self.runs_since is None else time.monotonic() - self.runs_since)

    def limited(self, requests: int | None = None, tokens: int | None = None) -> Scene:
        self.limits = RateLimits(requests, tokens)
        return self

    async def admit(self, now: float, workspace: str = "w", model: str = "m") -> LimitState:
        self.now = now
        return await self.limiter.admit(self._name + workspace, model, self.limits)

    async def charge(self, now: float, tokens: int) -> LimitState:
        self.now = now
        return await self.limiter.charge(self._name + "w", "m", self.limits, tokens)

    async def refusal(self, now: float, workspace: str = "w", model: str = "m") -> LimitExceeded:
        with pytest.raises(LimitExceeded) as refused:
            await self.admit(now, workspace, model)
        return refused.value


@pytest.fixture(params=["process", "redis"])
async def scene(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[Scene]:
    """A scene for each kind of limiter, without limits until `limited` sets them."""
    if request.param == "process":
        scene = Scene(InProcessLimits)
    else:
        scene = Scene(lambda clock: RedisLimits(redis_server.url, timeout_s=PATIENT_S, clock=clock))
    yield scene
    assert not scene.limiter.is_degraded
    await scene.limiter.aclose()


class TestRequests:
    async def test_the_request_after_the_last_allowed_is_refused(self, scene: Scene) -> None:
        scene.limited(requests=2)
        assert (await scene.admit(0.0)).remaining_requests == 1
        assert (await scene.admit(1.0)).remaining_requests == 0
        refused = await scene.refusal(2.0)
        assert refused.retry_after_s == 59  # the first one, at 0.0, leaves the window at 60.1
        assert refused.state == LimitState(2, 0, None, None)

    async def test_waiting_as_told_lets_the_next_request_pass(self, scene: Scene) -> None:
        scene.limited(requests=1)
        await scene.admit(7.35)
        refused = await scene.refusal(30.0)
        await scene.refusal(30.0 + refused.retry_after_s - 1)
        await scene.admit(30.0 + refused.retry_after_s)

    async def test_a_client_that_sleeps_as_told_passes(self, scene: Scene) -> None:
        scene.limited(requests=1)
        await scene.admit(0.0)
        scene.run(59.3)
        refused = await scene.refusal(59.3)
        assert refused.retry_after_s == 1
        await asyncio.sleep(refused.retry_after_s)
        await scene.admit(59.3)

    async def test_a_refused_request_is_not_counted(self, scene: Scene) -> None:
        scene.limited(requests=1)
        await scene.admit(0.0)
        for now in (10.0, 59.0):
            await scene.refusal(now)
        await scene.admit(60.1)

    async def test_workspaces_and_models_are_counted_apart(self, scene: Scene) -> None:
        scene.limited(requests=1)
        # The last two would be one if their names were only joined.
        pairs = [("a", "m"), ("b", "m"), ("a", "n"), ("a", "{b}:c"), ("a:{b}", "c")]
        for workspace, model in pairs:
            await scene.admit(0.0, workspace, model)
        for workspace, model in pairs:
            await scene.refusal(0.0, workspace, model)

    async def test_a_limit_of_zero_never_lets_a_request_pass(self, scene: Scene) -> None:
        refused = await scene.limited(requests=0).refusal(0.0)
        assert refused.retry_after_s == 60
        assert refused.state.headers()["x-ratelimit-limit-req-minute"] == "0"

    async def test_a_limit_of_zero_tokens_never_lets_a_request_pass(self, scene: Scene) -> None:
        refused = await scene.limited(requests=5, tokens=0).refusal(0.0)
        assert refused.retry_after_s == 60
        assert refused.state == LimitState(5, 5, 0, 0)

    async def test_requests_at_the_same_moment_pass_the_limit_by_none(self, scene: Scene) -> None:
        scene.limited(requests=40)
        answers = await asyncio.gather(*(scene.admit(0.0) for _ in range(100)), return_exceptions=True)
        assert sum(isinstance(answer, LimitState) for answer in answers) == 40
        assert sum(isinstance(answer, LimitExceeded) for answer in answers) == 60


class TestTokens:
    async def test_tokens_refuse_the_requests_after_them(self, scene: Scene) -> None:
        scene.limited(tokens=100)
        assert (await scene.admit(0.0)).remaining_tokens == 100
        assert (await scene.charge(1.0, 40)).remaining_tokens == 60
        await scene.admit(2.0)
        assert (await scene.charge(3.0, 90)).remaining_tokens == 0
        # 130 used; when the 40 of 1.0 leave the window at 61.1, 90 remain, which is under 100.
        assert (await scene.refusal(4.0)).retry_after_s == 58
        await scene.admit(61.2)

    async def test_the_wait_looks_past_as_many_charges_as_it_takes(self, scene: Scene) -> None:
        scene.limited(tokens=10)
        for number in range(80):
            await scene.charge(number / 10, 1)
        # 80 used. Under 10 when the 71st, of 7.0, leaves at 67.1.
        assert (await scene.refusal(10.0)).retry_after_s == 58

    async def test_no_tokens_are_no_charge(self, scene: Scene) -> None:
        assert await scene.limited(tokens=1).charge(0.0, 0) == LimitState(None, None, 1, 1)

    async def test_negative_tokens_are_an_error(self, scene: Scene) -> None:
        with pytest.raises(ValueError, match="-1"):
            await scene.limited(tokens=1).charge(0.0, -1)


class TestLimitsThatChange:
    async def test_another_limit_holds_from_the_next_request_on(self, scene: Scene) -> None:
        scene.limited(requests=5)
        for _ in range(4):
            await scene.admit(0.0)
        assert (await scene.limited(requests=3).refusal(1.0)).state == LimitState(3, 0, None, None)
        assert (await scene.limited(requests=6).admit(2.0)).remaining_requests == 1

    async def test_a_lower_limit_waits_until_enough_has_left_the_window(self, scene: Scene) -> None:
        scene.limited(requests=5)
        for now in (0.0, 10.0, 20.0):
            await scene.admit(now)
        # Two must leave: the second does at 70.1.
        assert (await scene.limited(requests=2).refusal(30.0)).retry_after_s == 41

    async def test_what_had_no_limit_was_not_counted(self, scene: Scene) -> None:
        await scene.limited(tokens=100).admit(0.0)
        await scene.limited(requests=1).charge(0.0, 50)
        assert await scene.limited(requests=9, tokens=100).charge(0.0, 0) == LimitState(9, 9, 100, 100)


class TestHeaders:
    async def test_no_limit_has_no_headers(self, scene: Scene) -> None:
        assert await scene.admit(0.0) == UNLIMITED
        assert (await scene.charge(0.0, 9)).headers(query_cost=9) == {}

    async def test_both_limits_have_all_headers(self, scene: Scene) -> None:
        await scene.limited(requests=10, tokens=1000).admit(0.0)
        assert (await scene.charge(0.5, 15)).headers(query_cost=15) == {
            "x-ratelimit-limit-req-minute": "10",
            "x-ratelimit-remaining-req-minute": "9",
            "x-ratelimit-limit-tokens-minute": "1000",
            "x-ratelimit-remaining-tokens-minute": "985",
            "x-ratelimit-tokens-query-cost": "15",
        }

    async def test_token_headers_are_left_out_when_the_limit_on_requests_refuses(self, scene: Scene) -> None:
        await scene.limited(requests=1, tokens=1000).admit(0.0)
        assert set((await scene.refusal(1.0)).state.headers()) == {
            "x-ratelimit-limit-req-minute",
            "x-ratelimit-remaining-req-minute",
        }

    async def test_token_headers_stand_when_the_limit_on_tokens_refuses(self, scene: Scene) -> None:
        await scene.limited(requests=5, tokens=10).charge(0.0, 10)
        assert (await scene.refusal(1.0)).state.headers()["x-ratelimit-remaining-tokens-minute"] == "0"


class TestInProcess:
    async def test_unused_pairs_are_forgotten(self) -> None:
        scene = Scene(InProcessLimits).limited(requests=5)
        assert isinstance(scene.limiter, InProcessLimits)
        for number in range(100):
            await scene.admit(number / 100, f"w{number}")
        assert scene.limiter.num_pairs == 100
        await scene.admit(70.0, "new")
        assert scene.limiter.num_pairs == 1

    async def test_what_has_no_limit_takes_no_memory(self) -> None:
        limiter = InProcessLimits()
        await limiter.admit("w", "m", RateLimits(tokens_per_month=5))
        await limiter.charge("w", "m", RateLimits(tokens_per_month=5), 9)
        assert limiter.num_pairs == 0

    async def test_a_clock_that_goes_back_frees_nothing(self) -> None:
        scene = Scene(InProcessLimits).limited(requests=1)
        await scene.admit(100.0)
        await scene.refusal(10.0)


async def test_the_settings_choose_the_limiter(redis_server: RedisServer) -> None:
    assert isinstance(make_limiter(Settings()), InProcessLimits)
    limiter = make_limiter(Settings(redis_url=SecretStr(redis_server.url)))
    assert isinstance(limiter, RedisLimits)
    assert (await limiter.admit("settings", "m", RateLimits(2))).remaining_requests == 1
    assert not limiter.is_degraded
    await limiter.aclose()
