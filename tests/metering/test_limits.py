"""Sliding-window limits, against hand-made scenes and a naive list of everything that ever happened."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzo.metering.limits import LimitExceeded, LimitState, RateLimiter


def limiter(requests: int | None = None, tokens: int | None = None) -> RateLimiter:
    return RateLimiter(requests_per_minute=requests, tokens_per_minute=tokens)


class TestRequests:
    def test_the_request_after_the_last_allowed_is_refused(self) -> None:
        limits = limiter(requests=2)
        assert limits.admit("k", "m", 0.0).remaining_requests == 1
        assert limits.admit("k", "m", 1.0).remaining_requests == 0
        with pytest.raises(LimitExceeded) as refused:
            limits.admit("k", "m", 2.0)
        assert refused.value.retry_after_s == 59  # the first one, at 0.0, leaves the window at 60.1
        assert refused.value.state == LimitState(2, 0, None, None)

    def test_waiting_as_told_lets_the_next_request_pass(self) -> None:
        limits = limiter(requests=1)
        limits.admit("k", "m", 7.35)
        with pytest.raises(LimitExceeded) as refused:
            limits.admit("k", "m", 30.0)
        limits.admit("k", "m", 30.0 + refused.value.retry_after_s)

    def test_a_refused_request_is_not_counted(self) -> None:
        limits = limiter(requests=1)
        limits.admit("k", "m", 0.0)
        for now in (10.0, 59.0):
            with pytest.raises(LimitExceeded):
                limits.admit("k", "m", now)
        limits.admit("k", "m", 60.1)

    def test_keys_and_models_are_counted_apart(self) -> None:
        limits = limiter(requests=1)
        for key, model in (("a", "m"), ("b", "m"), ("a", "n")):
            limits.admit(key, model, 0.0)
        with pytest.raises(LimitExceeded):
            limits.admit("a", "m", 0.0)

    def test_a_limit_of_zero_never_lets_a_request_pass(self) -> None:
        with pytest.raises(LimitExceeded) as refused:
            limiter(requests=0).admit("k", "m", 0.0)
        assert refused.value.retry_after_s == 60
        assert refused.value.state.headers()["x-ratelimit-limit-req-minute"] == "0"


class TestTokens:
    def test_tokens_refuse_the_requests_after_them(self) -> None:
        limits = limiter(tokens=100)
        assert limits.admit("k", "m", 0.0).remaining_tokens == 100
        assert limits.charge("k", "m", 40, 1.0).remaining_tokens == 60
        limits.admit("k", "m", 2.0)
        assert limits.charge("k", "m", 90, 3.0).remaining_tokens == 0
        with pytest.raises(LimitExceeded) as refused:
            limits.admit("k", "m", 4.0)
        # 130 used; when the 40 of 1.0 leave the window at 61.1, 90 remain, which is under 100.
        assert refused.value.retry_after_s == 58
        limits.admit("k", "m", 61.2)

    def test_negative_tokens_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="-1"):
            limiter(tokens=1).charge("k", "m", -1, 0.0)


class TestHeaders:
    def test_no_limit_has_no_headers(self) -> None:
        limits = limiter()
        assert limits.admit("k", "m", 0.0).headers(query_cost=9) == {}
        assert limits.charge("k", "m", 9, 0.0).headers(query_cost=9) == {}
        assert limits.num_pairs == 0

    def test_both_limits_have_all_headers(self) -> None:
        limits = limiter(requests=10, tokens=1000)
        limits.admit("k", "m", 0.0)
        assert limits.charge("k", "m", 15, 0.5).headers(query_cost=15) == {
            "x-ratelimit-limit-req-minute": "10",
            "x-ratelimit-remaining-req-minute": "9",
            "x-ratelimit-limit-tokens-minute": "1000",
            "x-ratelimit-remaining-tokens-minute": "985",
            "x-ratelimit-tokens-query-cost": "15",
        }

    def test_token_headers_are_left_out_when_the_limit_on_requests_refuses(self) -> None:
        limits = limiter(requests=1, tokens=1000)
        limits.admit("k", "m", 0.0)
        with pytest.raises(LimitExceeded) as refused:
            limits.admit("k", "m", 1.0)
        assert set(refused.value.state.headers()) == {
            "x-ratelimit-limit-req-minute",
            "x-ratelimit-remaining-req-minute",
        }

    def test_token_headers_stand_when_the_limit_on_tokens_refuses(self) -> None:
        limits = limiter(requests=5, tokens=10)
        limits.charge("k", "m", 10, 0.0)
        with pytest.raises(LimitExceeded) as refused:
            limits.admit("k", "m", 1.0)
        assert refused.value.state.headers()["x-ratelimit-remaining-tokens-minute"] == "0"


class TestMemory:
    def test_unused_pairs_are_forgotten(self) -> None:
        limits = limiter(requests=5)
        for number in range(100):
            limits.admit(f"k{number}", "m", number / 100)
        assert limits.num_pairs == 100
        limits.admit("new", "m", 70.0)
        assert limits.num_pairs == 1

    def test_a_clock_that_goes_back_frees_nothing(self) -> None:
        limits = limiter(requests=1)
        limits.admit("k", "m", 100.0)
        with pytest.raises(LimitExceeded):
            limits.admit("k", "m", 10.0)


class Naive:
    """Keeps every event for ever and adds up those that may lie within 60 s, slots of 0.1 s taken whole."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        self.limits = {"requests": requests, "tokens": tokens}
        self.events: list[tuple[str, str, int, int]] = []

    def used(self, kind: str, pair: str, slot: int) -> int:
        return sum(amount for k, p, at, amount in self.events if (k, p) == (kind, pair) and slot - at < 601)

    def admits(self, pair: str, slot: int) -> bool:
        return all(
            limit is None or self.used(kind, pair, slot) < limit for kind, limit in self.limits.items()
        )


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        # Steps of time in hundredths of a second: many small ones, and some about as long as the window.
        st.one_of(st.integers(0, 300), st.integers(5900, 6100)),
        st.one_of(st.none(), st.integers(0, 30)),
    ),
    max_size=60,
)
LIMITS = st.one_of(st.none(), st.integers(0, 40))


@given(requests=LIMITS, tokens=LIMITS, operations=OPERATIONS)
def test_every_decision_equals_that_of_the_naive_model(
    requests: int | None, tokens: int | None, operations: list[tuple[str, int, int | None]]
) -> None:
    limits, naive = limiter(requests, tokens), Naive(requests, tokens)
    hundredths = 0
    for pair, step, charged in operations:
        hundredths += step
        now, slot = hundredths / 100, math.floor(hundredths / 100 * 10)
        if charged is not None:
            state = limits.charge(pair, "m", charged, now)
            naive.events.append(("tokens", pair, slot, charged))
        elif naive.admits(pair, slot):
            state = limits.admit(pair, "m", now)
            naive.events.append(("requests", pair, slot, 1))
        else:
            with pytest.raises(LimitExceeded) as refused:
                limits.admit(pair, "m", now)
            wait_s = refused.value.retry_after_s
            assert 1 <= wait_s <= 61
            if 0 not in (requests, tokens):
                # Waiting as told suffices; a second less would not have, unless no shorter wait exists.
                assert naive.admits(pair, math.floor((now + wait_s) * 10 + 1e-6))
                assert wait_s == 1 or not naive.admits(pair, math.floor((now + wait_s - 1) * 10 - 1e-6))
            continue
        if requests is not None:
            assert state.remaining_requests == max(0, requests - naive.used("requests", pair, slot))
        if tokens is not None:
            assert state.remaining_tokens == max(0, tokens - naive.used("tokens", pair, slot))
