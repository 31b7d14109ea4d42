"""A request between the gateway and the books: entered just before work starts for it, and ended exactly once.

It is also where refusals of the lower layers become answers of the API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from mezzo.accounts.access import Access, RateLimits
from mezzo.metering.books import Books
from mezzo.metering.fair_queue import FairQueue, Place, QueueFull
from mezzo.metering.idempotency import Claim, KeptAnswer
from mezzo.metering.journal import KeyTaken
from mezzo.metering.records import Opening, Settlement, Status, Usage
from mezzo.metering.spending import QuotaReached, SpendLimitReached
from mezzo.protocol.errors import RateLimited, ServiceUnavailable, SpendLimitExceeded
from mezzo.server.exchange import Exchange
from mezzo.server.terms import ChatTerms
from mezzo.store.group_commit import StoreUnavailable

_log = structlog.get_logger("mezzo.server")


class Admission:
    """One request's place in the queue of its backend, and its entries in the books.

    claim   of its idempotency key, None where it has none: its answer is then not kept
    """

    def __init__(
        self,
        books: Books,
        queue: FairQueue,
        exchange: Exchange,
        access: Access,
        terms: ChatTerms,
        *,
        claim: Claim | None,
        limits: RateLimits,
        now: datetime,
        engine_run_id: Callable[[], str | None],
    ) -> None:
        self.claim = claim
        self._books = books
        self._queue = queue
        self._exchange = exchange
        self._access = access
        self._terms = terms
        self._limits = limits
        self._now = now
        self._engine_run_id = engine_run_id
        self._place: Place | None = None
        self._opening: Opening | None = None
        self._entered: asyncio.Future[None] | None = None

    async def approve(self, max_prompt_tokens: int, max_completion_tokens: int) -> None:
        """Wait for a place, then enter the request with the most that it can use.

        Raises: ServiceUnavailable if too many wait or the books cannot be written; SpendLimitExceeded; RateLimited for
        a monthly quota; metering.journal.KeyTaken.
        """
        with self._exchange.timed("queue"):
            await self._wait_for_place(max_prompt_tokens + max_completion_tokens)
        self._opening = self._make_opening(max_prompt_tokens, max_completion_tokens)
        try:
            with self._exchange.timed("open"):
                self._entered = await self._books.journal.open(self._opening)
        except SpendLimitReached as refusal:
            self._opening = None
            raise SpendLimitExceeded(str(refusal)) from None
        except QuotaReached as refusal:
            self._opening = None
            # Until next month: longer than a client should sleep, so it is not told a number of seconds.
            raise RateLimited(f"Rate limit exceeded: {refusal}", retry_after_s=None) from None
        except KeyTaken:
            self._opening = None
            raise
        except StoreUnavailable as fault:
            _log.error("refused: the books cannot be written", reason=str(fault))
            raise ServiceUnavailable from None

    async def entered(self) -> None:
        """Return when the request is in the books: nothing may be answered before. Raises: StoreUnavailable."""
        if self._entered is not None:
            await asyncio.shield(self._entered)

    def settle(
        self,
        status: Status,
        usage: Usage,
        *,
        engine_run_id: str | None = None,
        answer: KeptAnswer | None = None,
    ) -> asyncio.Future[None] | None:
        """Give the place back and enter the end, once; None if the request was never entered.

        The future is that of `Journal.settle`; nobody has to wait for it.
        """
        if self._place is not None:
            self._place.release()
        opening, self._opening = self._opening, None
        if opening is None:
            return None
        is_kept = self.claim is not None and status == "finished"
        return self._books.journal.settle(
            Settlement(
                opening=opening,
                status=status,
                usage=usage,
                engine_run_id=engine_run_id,
                latency_us=round(self._exchange.elapsed_s * 1e6),
                ttft_us=None if self._exchange.ttft_s is None else round(self._exchange.ttft_s * 1e6),
                answer=self._books.seal(answer) if is_kept and answer is not None else None,
            )
        )

    async def _wait_for_place(self, cost: int) -> None:
        try:
            self._place = await self._queue.acquire(
                self._access.workspace,
                max(1, cost),
                num_places=self._terms.num_choices,
                has_priority=self._terms.price.service_tier == "priority",
            )
        except QueueFull:
            raise ServiceUnavailable from None

    def _make_opening(self, max_prompt_tokens: int, max_completion_tokens: int) -> Opening:
        exchange = self._exchange
        return Opening(
            id=self._terms.id,
            access=self._access,
            created_at=self._now,
            route=exchange.path,
            model=exchange.model or "",
            model_id=self._terms.model_id,
            weights=exchange.weights or "",
            engine_run_id=self._engine_run_id(),
            is_stream=exchange.is_stream,
            price=self._terms.price,
            max_prompt_tokens=max_prompt_tokens,
            max_completion_tokens=max_completion_tokens,
            tokens_per_month=self._limits.tokens_per_month,
            claim=self.claim,
        )
