"""`/v1/admin/api-keys`. Admin keys are made, listed and revoked at the machine alone: `mezzo keys`."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response

from mezzo.accounts import keys
from mezzo.protocol.admin.answers import Detail
from mezzo.protocol.admin.keys import KeyAnswer, KeyCreate, KeysAnswer, KeysQuery
from mezzo.server.routes.admin import shapes
from mezzo.server.routes.admin.calls import Admin, AdminCalls, answer, id_of, query_of
from mezzo.server.routes.admin.operations import operation


def key_routes(calls: AdminCalls) -> APIRouter:
    """Return the routes of keys."""
    router = APIRouter()

    @router.get("/v1/admin/api-keys", **operation("List API keys", KeysAnswer, query=KeysQuery))
    async def list_keys(request: Request) -> Response:
        admin = await calls.admin(request)
        query = query_of(request, KeysQuery)
        found = await calls.read(
            lambda connection, now: keys.list_keys(
                connection, admin.organization_id, name=query.name, limit=query.limit, offset=query.offset
            )
        )
        return answer(KeysAnswer(keys=[shapes.extended_key(key) for key in found]))

    @router.post("/v1/admin/api-keys", **operation("Make an API key", KeyAnswer, body=KeyCreate))
    async def create_key(request: Request) -> Response:
        return await calls.make(request, KeyCreate, _create)

    @router.delete("/v1/admin/api-keys/{key_id}", **operation("Delete an API key", Detail, path_id="key_id"))
    async def delete_key(request: Request) -> Response:
        admin = await calls.admin(request)
        key_id = id_of(request, "key_id")
        await calls.change(
            lambda connection, now: keys.revoke_key(
                connection,
                organization_id=admin.organization_id,
                key_id=key_id,
                kind="api",
                actor=admin.actor,
                now=now,
            )
        )
        return answer(Detail(detail="API key deleted"))

    return router


def _create(connection: Connection, admin: Admin, body: KeyCreate, now: datetime) -> KeyAnswer:
    key, secret = keys.create_key(
        connection,
        organization_id=admin.organization_id,
        workspace_id=body.workspace_uuid,
        user_id=body.user_id,
        name=body.name,
        expiration=body.expiration,
        actor=admin.actor,
        now=now,
    )
    return shapes.created_key(key, secret)
