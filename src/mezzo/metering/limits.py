"""How many requests and tokens a workspace may use of a model per minute.

The window slides: what happened within the last 60 s counts, whatever the clock's minute. A request is
counted when it is admitted, its tokens when they are known, as the reference API does: a request is refused
when the tokens of earlier ones have used the limit up, so the last one admitted may pass it.

Time is cut into slots of a tenth of a second and a slot counts until its last instant is 60 s old. So no 60 s
ever hold more requests than the limit, a place comes back at most 0.1 s late, and a window takes at most 601
counters however busy its workspace is.

The limits come with each call, so that a change of them holds from the next request on. What has no limit is
not counted; a limit that is set counts from then on. limits.lua does in Redis what stands here, number for number.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mezzo.accounts.access import RateLimits
from mezzo.settings import Settings

WINDOW_S = 60
SLOTS_PER_S = 10
# Slots from one that still counts to the first that no longer sees it.
SPAN = WINDOW_S * SLOTS_PER_S + 1


@dataclass(frozen=True, slots=True)
class LimitState:
    """What one workspace has left of one model at one moment. None where there is no limit.

    A remainder is never negative, also when the last request took more tokens than were left.
    """

    limit_requests: int | None
    remaining_requests: int | None
    limit_tokens: int | None
    remaining_tokens: int | None

    def headers(self, *, query_cost: int | None = None) -> dict[str, str]:
        """Return the `x-ratelimit-*` headers; none for what has no limit.

        query_cost: tokens charged to this request, where they are known before the headers are sent.
        """
        numbers = {
            "x-ratelimit-limit-req-minute": self.limit_requests,
            "x-ratelimit-remaining-req-minute": self.remaining_requests,
            "x-ratelimit-limit-tokens-minute": self.limit_tokens,
            "x-ratelimit-remaining-tokens-minute": self.remaining_tokens,
            "x-ratelimit-tokens-query-cost": None if self.limit_tokens is None else query_cost,
        }
        return {name: str(number) for name, number in numbers.items() if number is not None}


UNLIMITED = LimitState(None, None, None, None)


class LimitExceeded(Exception):
    """A request is over the caller's limit and was not counted.

    retry_after_s   whole seconds, at least 1, until a request can pass (60 for a limit of 0, which never lets
                    one pass)
    state           for the headers; it leaves the tokens out when the limit on requests refused, as the
                    reference API does
    """

    def __init__(self, retry_after_s: int, state: LimitState) -> None:
        super().__init__(f"rate limit exceeded; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s
        self.state = state


class RateLimiter(Protocol):
    """Counts requests and tokens for each pair of a workspace and a model. For one event loop."""

    async def admit(self, workspace_id: str, model_id: str, limits: RateLimits) -> LimitState:
        """Count one request and return what is left. Raises: LimitExceeded."""

    async def charge(self, workspace_id: str, model_id: str, limits: RateLimits, tokens: int) -> LimitState:
        """Count the tokens that a request turned out to use, and return what is left.

        Raises: ValueError if tokens is negative.
        """

    @property
    def is_degraded(self) -> bool:
        """Whether servers that should count together count each for itself, since the last call."""

    async def aclose(self) -> None:
        """Close connections. Nothing is called after it."""


def make_limiter(settings: Settings) -> RateLimiter:
    """Return what counts where the settings say: in Redis, for all servers together, or in this process."""
    if settings.redis_url is None:
        return InProcessLimits()
    from mezzo.metering.redis_limits import RedisLimits  # noqa: PLC0415  a quarter of a second to import

    return RedisLimits(settings.redis_url.get_secret_value())


class InProcessLimits:
    """A RateLimiter that counts in this process.

    clock: seconds of a clock that does not go back; a time before the latest one seen counts as that one. Every
    call costs constant time, amortised. Pairs unused for a window's length are forgotten.
    """

    is_degraded = False

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slot = 0
        # Least recently used first.
        self._pairs: OrderedDict[tuple[str, str], _Pair] = OrderedDict()

    async def admit(self, workspace_id: str, model_id: str, limits: RateLimits) -> LimitState:
        """Count one request. Raises: LimitExceeded."""
        if not has_limit(limits):
            return UNLIMITED
        now = self._clock()
        pair = self._pair(workspace_id, model_id, now)
        requests_free_at = _free_at(pair.requests, limits.requests_per_minute)
        free_at = max(requests_free_at, _free_at(pair.tokens, limits.tokens_per_minute))
        if free_at > self._slot:
            raise exceeded(
                limits,
                wait_s=None if math.isinf(free_at) else math.ceil(free_at / SLOTS_PER_S - now),
                used=pair.used,
                by_requests=requests_free_at > self._slot,
            )
        if limits.requests_per_minute is not None:
            pair.requests.add(self._slot, 1)
        return limit_state(limits, pair.used)

    async def charge(self, workspace_id: str, model_id: str, limits: RateLimits, tokens: int) -> LimitState:
        """Count the tokens of a request. Raises: ValueError."""
        check_tokens(tokens)
        if not has_limit(limits):
            return UNLIMITED
        pair = self._pair(workspace_id, model_id, self._clock())
        if limits.tokens_per_minute is not None and tokens:
            pair.tokens.add(self._slot, tokens)
        return limit_state(limits, pair.used)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    @property
    def num_pairs(self) -> int:
        """Pairs of workspace and model that are remembered."""
        return len(self._pairs)

    def _pair(self, workspace_id: str, model_id: str, now: float) -> _Pair:
        self._slot = max(self._slot, math.floor(now * SLOTS_PER_S))
        while self._pairs and self._slot - next(iter(self._pairs.values())).last_used >= SPAN:
            self._pairs.popitem(last=False)
        pair = self._pairs.setdefault((workspace_id, model_id), _Pair())
        self._pairs.move_to_end((workspace_id, model_id))
        pair.last_used = self._slot
        pair.requests.forget(self._slot - SPAN)
        pair.tokens.forget(self._slot - SPAN)
        return pair


class _Window:
    """Amounts by slot, oldest first, and their sum."""

    __slots__ = ("slots", "total")

    def __init__(self) -> None:
        self.slots: deque[tuple[int, int]] = deque()
        self.total = 0

    def add(self, slot: int, amount: int) -> None:
        if self.slots and self.slots[-1][0] == slot:
            amount_before = self.slots.pop()[1]
            self.slots.append((slot, amount_before + amount))
        else:
            self.slots.append((slot, amount))
        self.total += amount

    def forget(self, last_slot: int) -> None:
        while self.slots and self.slots[0][0] <= last_slot:
            self.total -= self.slots.popleft()[1]


class _Pair:
    """The two windows of one workspace and one model, and the slot in which they were last looked at."""

    __slots__ = ("last_used", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = _Window()
        self.tokens = _Window()
        self.last_used = 0

    @property
    def used(self) -> tuple[int, int]:
        return self.requests.total, self.tokens.total


def _free_at(window: _Window, limit: int | None) -> float:
    """Return the first slot in which the window's sum is under the limit: -inf if now, inf if never."""
    if limit is None or window.total < limit:
        return -math.inf
    total = window.total
    for slot, amount in window.slots:
        total -= amount
        if total < limit:
            return slot + SPAN
    return math.inf


def has_limit(limits: RateLimits) -> bool:
    """Tell whether anything per minute is limited, so that there is something to count."""
    return limits.requests_per_minute is not None or limits.tokens_per_minute is not None


def check_tokens(tokens: int) -> None:
    """Check an amount that is to be charged. Raises: ValueError."""
    if tokens < 0:
        raise ValueError(f"tokens is {tokens}; a request cannot use less than none")


def limit_state(limits: RateLimits, used: tuple[int, int], *, with_tokens: bool = True) -> LimitState:
    """Return what limits leave of what was used: requests and tokens."""
    limit_requests = limits.requests_per_minute
    limit_tokens = limits.tokens_per_minute if with_tokens else None
    return LimitState(
        limit_requests, _remaining(limit_requests, used[0]), limit_tokens, _remaining(limit_tokens, used[1])
    )


def exceeded(
    limits: RateLimits, *, wait_s: int | None, used: tuple[int, int], by_requests: bool
) -> LimitExceeded:
    """Return the refusal of a request. wait_s: None if no request will ever pass."""
    retry_after_s = WINDOW_S if wait_s is None else min(max(wait_s, 1), WINDOW_S + 1)
    return LimitExceeded(retry_after_s, limit_state(limits, used, with_tokens=not by_requests))


def _remaining(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(0, limit - used)
