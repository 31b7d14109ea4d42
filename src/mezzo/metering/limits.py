"""How many requests and tokens a key may use of a model per minute, counted in this process.

The window slides: what happened within the last 60 s counts, whatever the clock's minute. A request is
counted when it is admitted, its tokens when they are known, as the reference API does: a request is refused
when the tokens of earlier ones have used the limit up, so the last one admitted may pass it.

Time is cut into slots of a tenth of a second and a slot counts until its last instant is 60 s old. So no 60 s
ever hold more requests than the limit, a place comes back at most 0.1 s late, and a window takes at most 601
counters however busy its key is.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass

WINDOW_S = 60
_SLOTS_PER_S = 10
# Slots from one that still counts to the first that no longer sees it.
_SPAN = WINDOW_S * _SLOTS_PER_S + 1


@dataclass(frozen=True, slots=True)
class LimitState:
    """What one key has left of one model at one moment. None where there is no limit.

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


class RateLimiter:
    """Counts requests and tokens for each pair of a key and a model. Not safe for threads.

    `now` is in seconds of any clock that does not go back, such as time.monotonic; a `now` before the latest
    one seen counts as that one. Every call costs constant time, amortised. Pairs unused for a window's length
    are forgotten.
    """

    def __init__(self, *, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self._limit_requests = requests_per_minute
        self._limit_tokens = tokens_per_minute
        self._slot = 0
        # Least recently used first.
        self._pairs: OrderedDict[tuple[str, str], _Pair] = OrderedDict()

    def admit(self, key_id: str, model_id: str, now: float) -> LimitState:
        """Count one request of a key for a model. Raises: LimitExceeded."""
        if self._limit_requests is None and self._limit_tokens is None:
            return LimitState(None, None, None, None)
        pair = self._pair(key_id, model_id, now)
        requests_free_at = _free_at(pair.requests, self._limit_requests)
        tokens_free_at = _free_at(pair.tokens, self._limit_tokens)
        free_at = max(requests_free_at, tokens_free_at)
        if free_at > self._slot:
            wait_s = WINDOW_S if math.isinf(free_at) else math.ceil(free_at / _SLOTS_PER_S - now)
            raise LimitExceeded(
                min(max(wait_s, 1), WINDOW_S + 1),
                self._state(pair, with_tokens=requests_free_at <= self._slot),
            )
        if self._limit_requests is not None:
            pair.requests.add(self._slot, 1)
        return self._state(pair)

    def charge(self, key_id: str, model_id: str, tokens: int, now: float) -> LimitState:
        """Count the tokens that a request turned out to use, and return what is left. Raises: ValueError."""
        if tokens < 0:
            raise ValueError(f"tokens is {tokens}; a request cannot use less than none")
        if self._limit_requests is None and self._limit_tokens is None:
            return LimitState(None, None, None, None)
        pair = self._pair(key_id, model_id, now)
        if self._limit_tokens is not None and tokens:
            pair.tokens.add(self._slot, tokens)
        return self._state(pair)

    @property
    def num_pairs(self) -> int:
        """Pairs of key and model that are remembered."""
        return len(self._pairs)

    def _pair(self, key_id: str, model_id: str, now: float) -> _Pair:
        self._slot = max(self._slot, math.floor(now * _SLOTS_PER_S))
        while self._pairs and self._slot - next(iter(self._pairs.values())).last_used >= _SPAN:
            self._pairs.popitem(last=False)
        pair = self._pairs.setdefault((key_id, model_id), _Pair())
        self._pairs.move_to_end((key_id, model_id))
        pair.last_used = self._slot
        pair.requests.forget(self._slot - _SPAN)
        pair.tokens.forget(self._slot - _SPAN)
        return pair

    def _state(self, pair: _Pair, *, with_tokens: bool = True) -> LimitState:
        limit_tokens = self._limit_tokens if with_tokens else None
        return LimitState(
            self._limit_requests,
            _remaining(pair.requests, self._limit_requests),
            limit_tokens,
            _remaining(pair.tokens, limit_tokens),
        )


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
    """The two windows of one key and one model, and the slot in which they were last looked at."""

    __slots__ = ("last_used", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = _Window()
        self.tokens = _Window()
        self.last_used = 0


def _free_at(window: _Window, limit: int | None) -> float:
    """Return the first slot in which the window's sum is under the limit: -inf if now, inf if never."""
    if limit is None or window.total < limit:
        return -math.inf
    total = window.total
    for slot, amount in window.slots:
        total -= amount
        if total < limit:
            return slot + _SPAN
    return math.inf


def _remaining(window: _Window, limit: int | None) -> int | None:
    return None if limit is None else max(0, limit - window.total)
