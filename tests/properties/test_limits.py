"""Random sequences of requests and charges: both limiters against a naive list of everything that ever happened."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mezzo.accounts.access import RateLimits
from mezzo.metering.limits import InProcessLimits, LimitExceeded, LimitState, RateLimiter
from mezzo.metering.redis_limits import RedisLimits
from tests.redis_server import PATIENT_S, RedisServer

_runs = itertools.count()


class Naive:
    """Keeps every event for ever and adds up those that may lie within 60 s, slots of 0.1 s taken whole."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int, int]] = []

    def used(self, kind: str, pair: str, slot: int) -> int:
        return sum(amount for k, p, at, amount in self.events if (k, p) == (kind, pair) and slot - at < 601)

    def admits(self, pair: str, slot: int, limits: RateLimits) -> bool:
        return all(
            limit is None or self.used(kind, pair, slot) < limit
            for kind, limit in (
                ("requests", limits.requests_per_minute),
                ("tokens", limits.tokens_per_minute),
            )
        )

    def left(self, pair: str, slot: int, limits: RateLimits) -> LimitState:
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        return LimitState(
            requests,
            None if requests is None else max(0, requests - self.used("requests", pair, slot)),
            tokens,
            None if tokens is None else max(0, tokens - self.used("tokens", pair, slot)),
        )


LIMITS = st.builds(RateLimits, st.none() | st.integers(0, 12), st.none() | st.integers(0, 40))
# Hundredths of a second to the next operation: many small steps, and some about as long as the window.
STEPS = st.integers(0, 300) | st.integers(5900, 6100)
OPERATIONS = st.lists(st.tuples(st.sampled_from("ab"), STEPS, st.none() | st.integers(0, 30)), max_size=60)
# An administrator sets other limits now and then.
ERAS = st.lists(st.tuples(LIMITS, OPERATIONS), min_size=1, max_size=3)


@given(eras=ERAS)
async def test_every_decision_equals_that_of_the_naive_model(
    eras: list[tuple[RateLimits, list[tuple[str, int, int | None]]]],
) -> None:
    naive, hundredths = Naive(), 0
    limiter = InProcessLimits(lambda: hundredths / 100)
    for limits, operations in eras:
        for pair, step, charged in operations:
            hundredths += step
            now, slot = hundredths / 100, math.floor(hundredths / 100 * 10)
            if charged is not None:
                state = await limiter.charge(pair, "m", limits, charged)
                if limits.tokens_per_minute is not None:
                    naive.events.append(("tokens", pair, slot, charged))
            elif naive.admits(pair, slot, limits):
                state = await limiter.admit(pair, "m", limits)
                if limits.requests_per_minute is not None:
                    naive.events.append(("requests", pair, slot, 1))
            else:
                with pytest.raises(LimitExceeded) as refused:
                    await limiter.admit(pair, "m", limits)
                wait_s = refused.value.retry_after_s
                assert 1 <= wait_s <= 61
                if 0 not in (limits.requests_per_minute, limits.tokens_per_minute):
                    # Waiting as told suffices; a second less would not have, unless no shorter wait exists.
                    assert naive.admits(pair, math.floor((now + wait_s) * 10 + 1e-6), limits)
                    assert wait_s == 1 or not naive.admits(
                        pair, math.floor((now + wait_s - 1) * 10 - 1e-6), limits
                    )
                continue
            assert state == naive.left(pair, slot, limits)


@given(eras=ERAS, start=st.sampled_from([0, 176_000_000_037]))
@settings(max_examples=60)
async def test_redis_gives_every_answer_that_the_process_gives(
    redis_server: RedisServer,
    eras: list[tuple[RateLimits, list[tuple[str, int, int | None]]]],
    start: int,
) -> None:
    hundredths, run = start, next(_runs)
    alone = InProcessLimits(lambda: hundredths / 100)
    shared = RedisLimits(redis_server.url, timeout_s=PATIENT_S, clock=lambda: hundredths / 100)
    for limits, operations in eras:
        for pair, step, charged in operations:
            hundredths += step
            workspace_id = f"run-{run}-{pair}"
            answers = [await _answer(limiter, workspace_id, limits, charged) for limiter in (alone, shared)]
            assert answers[0] == answers[1]
    assert not shared.is_degraded
    await shared.aclose()


async def _answer(
    limiter: RateLimiter, workspace_id: str, limits: RateLimits, charged: int | None
) -> tuple[int | None, LimitState]:
    try:
        if charged is not None:
            return None, await limiter.charge(workspace_id, "m", limits, charged)
        return None, await limiter.admit(workspace_id, "m", limits)
    except LimitExceeded as over:
        return over.retry_after_s, over.state
