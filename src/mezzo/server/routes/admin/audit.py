"""`/v1/admin/audit-logs`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mezzo.accounts.audit import list_entries
from mezzo.protocol.admin.answers import list_to_json
from mezzo.protocol.admin.audit import AuditEntryAnswer, AuditQuery
from mezzo.server.routes.admin import shapes
from mezzo.server.routes.admin.calls import AdminCalls, query_of
from mezzo.server.routes.admin.operations import operation


def audit_routes(calls: AdminCalls) -> APIRouter:
    """Return the route of the audit log."""
    router = APIRouter()

    @router.get(
        "/v1/admin/audit-logs", **operation("List who changed what", [AuditEntryAnswer], query=AuditQuery)
    )
    async def list_audit_logs(request: Request) -> Response:
        admin = await calls.admin(request)
        query = query_of(request, AuditQuery)
        entries = await calls.read(
            lambda connection, now: list_entries(
                connection,
                admin.organization_id,
                actor_types=query.actor_type,
                event_types=query.event_type,
                target_types=query.target_type,
                actor_user_id=query.actor_user_uuid,
                after=query.after,
                before=query.before,
                newest_first=query.sort == "descending",
                limit=query.limit,
            )
        )
        body = list_to_json([shapes.audit_entry(entry) for entry in entries])
        return Response(body, media_type="application/json")

    return router
