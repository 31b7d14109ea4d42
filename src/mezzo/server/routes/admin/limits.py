"""`/v1/admin/rate-limit` and `/v1/admin/spend-limit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from fastapi import APIRouter
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response

from mezzo.accounts import limits
from mezzo.accounts.access import EVERY_MODEL, RateLimits, load_rate_limits
from mezzo.accounts.scope import find_default_workspace
from mezzo.kit.money import NANO, as_number
from mezzo.protocol.admin.limits import (
    CompletionLimits,
    RateLimitAnswer,
    SpendLimitAnswer,
    SpendLimits,
    SpendLimitUpdate,
    TokenLimits,
)
from mezzo.server.routes.admin.calls import Admin, AdminCalls, answer, body_of
from mezzo.server.routes.admin.operations import operation


def limit_routes(
    calls: AdminCalls, default_limits: RateLimits, model_ids: Callable[[], Sequence[str]]
) -> APIRouter:
    """Return the routes of limits.

    default_limits: of models for which a workspace has no rule. model_ids: those that are served.
    """
    router = APIRouter()

    @router.get("/v1/admin/rate-limit", **operation("Rate limits of the default workspace", RateLimitAnswer))
    async def get_rate_limit(request: Request) -> Response:
        admin = await calls.admin(request)

        def read(connection: Connection, now: datetime) -> RateLimitAnswer:
            workspace_id = find_default_workspace(connection, admin.organization_id)
            rules = load_rate_limits(connection, workspace_id)
            return _rate_limits({EVERY_MODEL: default_limits, **rules}, model_ids())

        return answer(await calls.read(read))

    @router.get("/v1/admin/spend-limit", **operation("What a month may cost, and has cost", SpendLimitAnswer))
    async def get_spend_limit(request: Request) -> Response:
        admin = await calls.admin(request)
        return answer(await calls.read(lambda connection, now: _spend_limit(connection, admin, now)))

    @router.post(
        "/v1/admin/spend-limit",
        **operation("Set what a month may cost", SpendLimitAnswer, body=SpendLimitUpdate),
    )
    async def set_spend_limit(request: Request) -> Response:
        admin = await calls.admin(request)
        body = await body_of(request, SpendLimitUpdate)

        def change(connection: Connection, now: datetime) -> SpendLimitAnswer:
            limits.set_organization_limit(
                connection,
                organization_id=admin.organization_id,
                monthly_limit=None if body.no_monthly_limit else body.amount * NANO,
                actor=admin.actor,
                now=now,
            )
            return _spend_limit(connection, admin, now)

        return answer(await calls.change(change))

    return router


def _rate_limits(rules: dict[str, RateLimits], model_ids: Sequence[str]) -> RateLimitAnswer:
    general = rules[EVERY_MODEL]
    per_minute = general.requests_per_minute
    models = dict.fromkeys([*model_ids, *(model for model in rules if model != EVERY_MODEL)])
    chosen = {model: rules.get(model, general) for model in models}
    return RateLimitAnswer(
        requests_per_second=None if per_minute is None else -(-per_minute // 60),
        tokens_limits_by_model={
            model: TokenLimits(
                tokens_per_minute=limit.tokens_per_minute, tokens_per_month=limit.tokens_per_month
            )
            for model, limit in chosen.items()
        },
    )


def _spend_limit(connection: Connection, admin: Admin, now: datetime) -> SpendLimitAnswer:
    limit = limits.find_organization_limit(connection, admin.organization_id)
    spent = limits.find_spend(connection, "organization", admin.organization_id, now)
    return SpendLimitAnswer(
        limits=SpendLimits(
            completion=CompletionLimits(
                no_monthly_limit=limit is None,
                monthly_limit_reached=limit is not None and spent >= limit,
                usage=as_number(spent),
                vibe_usage=0,
                total_usage=as_number(spent),
                usage_limit=None if limit is None else as_number(limit),
            ),
            currency=limits.find_currency(connection),
        )
    )
