"""GET /v1/admin/usage: what an organisation used in a month."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mezzo.accounts.access import Access
from mezzo.accounts.errors import NotThere
from mezzo.metering.periods import UTC_ZONE, Month
from mezzo.metering.usage_report import usage_report
from mezzo.protocol.admin.usage import UsageQuery
from mezzo.protocol.errors import NotFound
from mezzo.protocol.parse import parse_query
from mezzo.store.database import Database


def _answer(description: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


_OPERATION: dict[str, Any] = {
    "summary": "Get what the organization used in a month",
    "operation_id": "get_usage",
    "openapi_extra": {
        "security": [{"bearer": []}],
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in UsageQuery.model_json_schema()["properties"].items()
        ],
    },
    "responses": {
        200: _answer("The month", "UsageReport"),
        401: _answer("No key, or one that nobody has", "DetailError"),
        403: _answer("A key that is no admin key", "DetailError"),
        404: _answer("No such workspace", "DetailError"),
        422: _answer("A parameter that does not fit", "ValidationError"),
    },
}


def usage_routes(
    database: Database,
    authenticate_admin: Callable[[Request], Awaitable[Access]],
    clock: Callable[[], datetime],
) -> APIRouter:
    """Return the route of usage. authenticate_admin: raises unless a request has an admin key."""
    router = APIRouter(tags=["admin"])

    @router.get("/v1/admin/usage", **_OPERATION)
    async def get_usage(request: Request) -> Response:
        access = await authenticate_admin(request)
        query = parse_query(UsageQuery, request.query_params.multi_items())
        body = await asyncio.to_thread(read, access.organization_id, query)
        return Response(body, media_type="application/json")

    def read(organization_id: str, query: UsageQuery) -> bytes:
        now = clock()
        this = Month.at(now, UTC_ZONE)
        month = Month(int(query.year or this.year), int(query.month or this.month))
        with database.read() as connection:
            try:
                report = usage_report(
                    connection,
                    organization_id,
                    month,
                    now=now,
                    workspace_id=query.workspace_id,
                    zone=query.api_zone,
                )
            except NotThere as error:
                raise NotFound(str(error)) from None
            return report.to_json()

    return router
