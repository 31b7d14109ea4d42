"""A request's two entries in the books: that it was admitted, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from mezzo.accounts.access import Access
from mezzo.metering.idempotency import Claim, SealedAnswer
from mezzo.metering.prices import Amounts, Price, most, rate

Status = Literal["finished", "aborted", "failed", "interrupted"]

BILLED: frozenset[Status] = frozenset({"finished", "aborted"})
"""Ends that cost what was used. What failed on our side costs nothing."""


def is_billed(status: Status, completion_tokens: int) -> bool:
    """Tell whether a request is billed: not if it failed on our side, nor if its client left before the first token."""
    return status in BILLED and (status != "aborted" or completion_tokens > 0)


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A request that is about to be worked on.

    id                        the request's, as in its answer
    created_at                the moment that counts for its price and its month
    route                     e.g. /v1/chat/completions
    model, model_id           the name asked for, and the model that answers
    engine_run_id             the engine process, where there is one of ours
    max_prompt_tokens, max_completion_tokens
                              the most that it can use, over all choices
    tokens_per_month          the quota of its workspace for this model, None for none
    claim                     of the key that makes it safe to send again, if it has one
    """

    id: str
    access: Access
    created_at: datetime
    route: str
    model: str
    model_id: str
    weights: str
    engine_run_id: str | None
    is_stream: bool
    price: Price
    max_prompt_tokens: int
    max_completion_tokens: int
    tokens_per_month: int | None = None
    claim: Claim | None = None

    @property
    def workspace_id(self) -> str:
        """The workspace that it is for."""
        return self.access.workspace

    @cached_property
    def month(self) -> str:
        """The month in UTC that it counts for, e.g. 2026-11."""
        return month_of(self.created_at)

    @property
    def may_be_refused(self) -> bool:
        """Whether entering it can show that it must not be served."""
        is_limited = bool(self.access.spend_limits) or self.tokens_per_month is not None
        return is_limited or self.claim is not None

    @cached_property
    def reserved(self) -> int:
        """The most that it can cost, in nano-units."""
        return most(
            self.price, prompt_tokens=self.max_prompt_tokens, completion_tokens=self.max_completion_tokens
        )

    def row(self, server_id: str) -> dict[str, Any]:
        """Return the row of `open_requests`."""
        return self.common() | {"server_id": server_id, "reserved": self.reserved}

    def common(self) -> dict[str, Any]:
        """Return what stands in both entries."""
        return {
            "id": self.id,
            "organization_id": self.access.organization_id,
            "workspace_id": self.workspace_id,
            "api_key_id": self.access.key_id,
            "created_at": self.created_at,
            "month": self.month,
            "route": self.route,
            "model": self.model,
            "model_id": self.model_id,
            "weights": self.weights,
            "engine_run_id": self.engine_run_id,
            "service_tier": self.price.service_tier,
            "is_stream": self.is_stream,
            "price_id": self.price.id,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a request used. cached and image tokens are parts of the prompt's; is_estimated: not counted by us."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    completion_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    is_estimated: bool = False


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """How a request ended.

    engine_run_id   the engine process that worked on it last
    answer          kept for retries, of a request with a claim that came to a good end
    """

    opening: Opening
    status: Status
    usage: Usage
    engine_run_id: str | None = None
    latency_us: int = 0
    ttft_us: int | None = None
    answer: SealedAnswer | None = None

    @cached_property
    def amounts(self) -> Amounts:
        """What it costs."""
        usage = self.usage
        if not is_billed(self.status, usage.completion_tokens):
            return Amounts()
        return rate(
            self.opening.price,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )

    @property
    def quota_tokens(self) -> int:
        """Tokens that count against limits: cached ones do not."""
        return self.usage.prompt_tokens - self.usage.cached_tokens + self.usage.completion_tokens

    def row(self) -> dict[str, Any]:
        """Return the row of `usage_records`."""
        usage, amounts = self.usage, self.amounts
        return self.opening.common() | {
            "engine_run_id": self.engine_run_id,
            "status": self.status,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "image_tokens": usage.image_tokens,
            "completion_tokens": usage.completion_tokens,
            "accepted_prediction_tokens": usage.accepted_prediction_tokens,
            "rejected_prediction_tokens": usage.rejected_prediction_tokens,
            "is_estimated": usage.is_estimated,
            "latency_us": self.latency_us,
            "ttft_us": self.ttft_us,
            "input_amount": amounts.input,
            "cached_input_amount": amounts.cached_input,
            "output_amount": amounts.output,
            "amount": amounts.total,
        }


def month_of(moment: datetime) -> str:
    """Return the month of a moment in UTC, e.g. 2026-11."""
    utc = moment.astimezone(UTC)
    return f"{utc.year:04}-{utc.month:02}"
