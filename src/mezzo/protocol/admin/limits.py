"""`/v1/admin/rate-limit` and `/v1/admin/spend-limit`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mezzo.kit.money import NANO
from mezzo.protocol.admin.answers import Answer
from mezzo.protocol.base import AS_INTEGER, INT64_MAX, Bool, WireModel

MAX_SPEND_LIMIT = INT64_MAX // NANO
"""In whole units of the currency: amounts are kept in nano-units."""


class SpendLimitUpdate(WireModel):
    """amount: in whole units of the currency; without effect with no_monthly_limit."""

    amount: Annotated[int, Field(ge=0, le=MAX_SPEND_LIMIT), AS_INTEGER]
    no_monthly_limit: Bool = False


class CompletionLimits(Answer, frozen=True, kw_only=True):
    """Amounts in units of the currency, this month's in UTC. usage_limit: None without one."""

    no_monthly_limit: bool
    monthly_limit_reached: bool
    usage: float
    vibe_usage: float
    total_usage: float
    usage_limit: float | None


class SpendLimits(Answer, frozen=True, kw_only=True):
    """Nobody's card is charged here, so no payment fails."""

    completion: CompletionLimits
    last_payment_failure: bool = False
    last_payment_failure_protection: bool | None = None
    currency: str


class SpendLimitAnswer(Answer, frozen=True, kw_only=True):
    limits: SpendLimits


class TokenLimits(Answer, frozen=True, kw_only=True):
    """None where there is no limit."""

    tokens_per_minute: int | None
    tokens_per_month: int | None


class RateLimitAnswer(Answer, frozen=True, kw_only=True):
    """requests_per_second: the per-minute limit as the reference's console shows it, rounded up; None without one."""

    requests_per_second: int | None
    tokens_limits_by_model: dict[str, TokenLimits]
