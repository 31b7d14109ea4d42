"""The limits of limits.py, counted in Redis for several servers together.

A call costs one round trip, and calls that come while one is under way share the next. The time is that of Redis,
so that the clocks of the servers do not matter. Keys expire when nothing in them counts any more.

While Redis cannot be reached, this server counts alone: a limit is then one for each server, and around the change
from one way to the other a workspace may use up to its limit once more.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import structlog
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import NoScriptError, RedisError

from mezzo.accounts.access import RateLimits
from mezzo.metering.limits import (
    SLOTS_PER_S,
    SPAN,
    UNLIMITED,
    InProcessLimits,
    LimitState,
    check_tokens,
    exceeded,
    has_limit,
    limit_state,
)

# Within one machine room a round trip takes less than a thousandth of a second.
TIMEOUT_S = 0.25
PAUSE_S = 1.0
WARNING_INTERVAL_S = 60.0
_SCRIPT = Path(__file__).with_name("limits.lua").read_text(encoding="utf-8")

_log = structlog.get_logger("mezzo.metering")


class _Answer(NamedTuple):
    """What the script returns. wait_s is 0 for what was counted, -1 if no request will ever pass."""

    wait_s: int
    by_requests: int
    used_requests: int
    used_tokens: int

    @property
    def used(self) -> tuple[int, int]:
        return self.used_requests, self.used_tokens


class _Call(NamedTuple):
    """One run of the script, and who waits for it. None: Redis was not reached."""

    arguments: list[Any]
    answer: asyncio.Future[_Answer | None]


class RedisLimits:
    """A RateLimiter that shares its counts with all others on the same Redis.

    url: of a Redis, as mezzo.store.url.check_redis_url accepts it; nothing connects before the first call.
    timeout_s: of a round trip, connecting included; a call that comes during one may wait for two.
    pause_s: after a failure nobody asks Redis for so long.
    clock: seconds in place of Redis' own time, for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._clock = clock
        pool = ConnectionPool.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # With version 3, redis-py no longer sees that an idle connection was closed.
            protocol=2,
        )
        self._redis = Redis.from_pool(pool)
        self._script_hash = self._redis.register_script(_SCRIPT).sha
        self._alone = InProcessLimits(clock or time.monotonic)
        self._waiting: list[_Call] = []
        self._asking: asyncio.Task[None] | None = None
        self._is_degraded = False
        self._next_try_s = 0.0
        self._next_warning_s = 0.0
        self._has_warned = False

    async def admit(self, workspace_id: str, model_id: str, limits: RateLimits) -> LimitState:
        """Count one request. Raises: LimitExceeded."""
        if not has_limit(limits):
            return UNLIMITED
        answer = await self._ask(workspace_id, model_id, limits)
        if answer is None:
            return await self._alone.admit(workspace_id, model_id, limits)
        if answer.wait_s:
            wait_s = None if answer.wait_s < 0 else answer.wait_s
            raise exceeded(limits, wait_s=wait_s, used=answer.used, by_requests=bool(answer.by_requests))
        return limit_state(limits, answer.used)

    async def charge(self, workspace_id: str, model_id: str, limits: RateLimits, tokens: int) -> LimitState:
        """Count the tokens of a request. Raises: ValueError."""
        check_tokens(tokens)
        if not has_limit(limits):
            return UNLIMITED
        answer = await self._ask(workspace_id, model_id, limits, tokens)
        if answer is None:
            return await self._alone.charge(workspace_id, model_id, limits, tokens)
        return limit_state(limits, answer.used)

    @property
    def is_degraded(self) -> bool:
        """Whether the last round trip failed. A later call finds out that Redis is back."""
        return self._is_degraded

    async def aclose(self) -> None:
        """Close the connection to Redis, after the calls that were made."""
        if self._asking is not None:
            await self._asking
        await self._redis.aclose()

    async def _ask(
        self, workspace_id: str, model_id: str, limits: RateLimits, tokens: int | None = None
    ) -> _Answer | None:
        if self._is_degraded:
            if time.monotonic() < self._next_try_s:
                return None
            # This call tries; those that come meanwhile do not wait for how it goes.
            self._next_try_s = time.monotonic() + self._pause_s
        now = None if self._clock is None else repr(self._clock())
        arguments = (limits.requests_per_minute, limits.tokens_per_minute, tokens, SLOTS_PER_S, SPAN, now)
        call = _Call(
            [
                *_keys(workspace_id, model_id),
                *("" if argument is None else argument for argument in arguments),
            ],
            asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(call)
        if self._asking is None:
            # In a context of its own: what it logs is not about the request that happened to come first. And as a
            # task: a client that leaves breaks off its own call, not the round trip of others.
            self._asking = asyncio.create_task(self._ask_for_all(), context=contextvars.Context())
        return await call.answer

    async def _ask_for_all(self) -> None:
        """Make round trips until no call waits."""
        try:
            while self._waiting:
                calls, self._waiting = self._waiting, []
                try:
                    answers = await self._run_script([call.arguments for call in calls])
                except (RedisError, OSError, TimeoutError) as error:
                    self._degrade(error)
                    # Those that came meanwhile do not wait for another failure.
                    calls += self._waiting
                    self._waiting = []
                    _resolve(calls, [None] * len(calls))
                except Exception as error:
                    for call in calls:
                        if not call.answer.done():
                            call.answer.set_exception(error)
                else:
                    self._recover()
                    _resolve(calls, answers)
        finally:
            self._asking = None

    async def _run_script(self, calls: list[list[Any]]) -> list[_Answer]:
        """Run the script for each call. Raises: RedisError, OSError, TimeoutError if any of them failed."""
        async with asyncio.timeout(self._timeout_s):
            answers = await self._round_trip(calls)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                # Redis is new, or was started again. It has run none of them.
                await self._redis.script_load(_SCRIPT)
                answers = await self._round_trip(calls)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [_Answer(*answer) for answer in answers]

    async def _round_trip(self, calls: list[list[Any]]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for arguments in calls:
                pipeline.evalsha(self._script_hash, 2, *arguments)
            return await pipeline.execute(raise_on_error=False)

    def _degrade(self, error: Exception) -> None:
        now = time.monotonic()
        self._is_degraded = True
        self._next_try_s = now + self._pause_s
        if now >= self._next_warning_s:
            self._next_warning_s = now + WARNING_INTERVAL_S
            self._has_warned = True
            # Not its message: a server may repeat in it what it was sent, a password too.
            _log.warning("redis not reached, this server counts limits alone", reason=type(error).__name__)

    def _recover(self) -> None:
        self._is_degraded = False
        if self._has_warned:
            self._has_warned = False
            _log.info("redis reached again, limits are shared")


def _resolve(calls: list[_Call], answers: list[_Answer] | list[None]) -> None:
    for call, answer in zip(calls, answers, strict=True):
        if not call.answer.done():  # its caller may have left
            call.answer.set_result(answer)


def _keys(workspace_id: str, model_id: str) -> list[str]:
    # What stands in braces decides on which node of a cluster a key is; a script's keys must be on the same one.
    pair = f"mezzo:limits:{{{quote(workspace_id, safe='')}:{quote(model_id, safe='')}}}"
    return [f"{pair}:requests", f"{pair}:tokens"]
