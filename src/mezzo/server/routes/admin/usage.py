"""GET /v1/admin/usage: what an organisation used in a month."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response

from mezzo.metering.periods import UTC_ZONE, Month
from mezzo.metering.usage_report import usage_report
from mezzo.protocol.admin.usage import UsageQuery, UsageReport
from mezzo.server.routes.admin.calls import AdminCalls, query_of
from mezzo.server.routes.admin.operations import operation


def usage_routes(calls: AdminCalls) -> APIRouter:
    """Return the route of usage."""
    router = APIRouter()

    @router.get(
        "/v1/admin/usage",
        **operation("Get what the organization used in a month", UsageReport, query=UsageQuery),
    )
    async def get_usage(request: Request) -> Response:
        admin = await calls.admin(request)
        query = query_of(request, UsageQuery)

        def read(connection: Connection, now: datetime) -> bytes:
            this = Month.at(now, UTC_ZONE)
            return usage_report(
                connection,
                admin.organization_id,
                Month(int(query.year or this.year), int(query.month or this.month)),
                now=now,
                workspace_id=query.workspace_id,
                zone=query.api_zone,
            ).to_json()

        return Response(await calls.read(read), media_type="application/json")

    return router
