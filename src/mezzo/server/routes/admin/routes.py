"""`/v1/admin/*`: an organisation administered by programs, with an admin key. docs/admin.md shows how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from fastapi import APIRouter

from mezzo.accounts.access import AccessCache, RateLimits
from mezzo.metering.idempotency import AnswerSeal
from mezzo.server.routes.admin.audit import audit_routes
from mezzo.server.routes.admin.calls import AdminCalls
from mezzo.server.routes.admin.keys import key_routes
from mezzo.server.routes.admin.limits import limit_routes
from mezzo.server.routes.admin.usage import usage_routes
from mezzo.server.routes.admin.users import user_routes
from mezzo.server.routes.admin.workspaces import workspace_routes
from mezzo.store.database import Database


def admin_routes(
    database: Database,
    access: AccessCache,
    seal: AnswerSeal,
    clock: Callable[[], datetime],
    *,
    default_limits: RateLimits | None = None,
    model_ids: Callable[[], Sequence[str]] = tuple,
) -> APIRouter:
    """Return the routes of the admin API.

    seal: encrypts answers that are kept for retries.

    default_limits: of models for which a workspace has no rule, no limits if None. model_ids: returns the ids of the
    models that are served; GET /rate-limit tells the limits of each.
    """
    calls = AdminCalls(database, access, seal, clock)
    router = APIRouter(tags=["admin"])
    router.include_router(user_routes(calls))
    router.include_router(workspace_routes(calls))
    router.include_router(key_routes(calls))
    router.include_router(limit_routes(calls, default_limits or RateLimits(), model_ids))
    router.include_router(audit_routes(calls))
    router.include_router(usage_routes(calls))
    return router
