"""`/v1/admin/workspaces`."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response

from mezzo.accounts import members, workspaces
from mezzo.accounts.errors import Unacceptable
from mezzo.accounts.limits import find_currency
from mezzo.accounts.roles import WORKSPACE_ROLES
from mezzo.protocol.admin.workspaces import (
    MembersAdded,
    MembersGiven,
    MembersNamed,
    MembersRemoved,
    MembersSet,
    WorkspaceAnswer,
    WorkspaceCreate,
    WorkspaceCreated,
    WorkspacesAnswer,
    WorkspacesQuery,
    WorkspaceUpdate,
)
from mezzo.server.routes.admin import shapes
from mezzo.server.routes.admin.calls import Admin, AdminCalls, answer, blaming, body_of, id_of, query_of
from mezzo.server.routes.admin.operations import operation


def workspace_routes(calls: AdminCalls) -> APIRouter:
    """Return the routes of workspaces and their members."""
    router = APIRouter()

    @router.get(
        "/v1/admin/workspaces", **operation("List workspaces", WorkspacesAnswer, query=WorkspacesQuery)
    )
    async def list_workspaces(request: Request) -> Response:
        admin = await calls.admin(request)
        query = query_of(request, WorkspacesQuery)
        return answer(await calls.read(lambda connection, now: _page(connection, admin, query)))

    @router.post(
        "/v1/admin/workspaces", **operation("Make a workspace", WorkspaceCreated, body=WorkspaceCreate)
    )
    async def create_workspace(request: Request) -> Response:
        return await calls.make(request, WorkspaceCreate, _create)

    @router.patch(
        "/v1/admin/workspaces/{uuid}",
        **operation("Change a workspace", WorkspaceAnswer, path_id="uuid", body=WorkspaceUpdate),
    )
    async def update_workspace(request: Request) -> Response:
        admin = await calls.admin(request)
        workspace_id = id_of(request, "uuid")
        body = await body_of(request, WorkspaceUpdate)

        def update(connection: Connection, now: datetime) -> WorkspaceAnswer:
            workspace = workspaces.update_workspace(
                connection,
                organization_id=admin.organization_id,
                workspace_id=workspace_id,
                name=body.name,
                description=body.description,
                icon=body.icon,
                actor=admin.actor,
                now=now,
            )
            return shapes.workspace_answer(workspace, find_currency(connection))

        return answer(await calls.change(update))

    @router.delete("/v1/admin/workspaces/{uuid}", **operation("Archive a workspace", None, path_id="uuid"))
    async def archive_workspace(request: Request) -> Response:
        admin = await calls.admin(request)
        workspace_id = id_of(request, "uuid")
        await calls.change(
            lambda connection, now: workspaces.archive_workspace(
                connection,
                organization_id=admin.organization_id,
                workspace_id=workspace_id,
                actor=admin.actor,
                now=now,
            )
        )
        return Response(status_code=204)

    @router.post(
        "/v1/admin/workspaces/{uuid}/add-users",
        **operation("Add members", MembersAdded, path_id="uuid", body=MembersGiven),
    )
    async def add_users(request: Request) -> Response:
        workspace_id = id_of(request, "uuid")

        def add(connection: Connection, admin: Admin, body: MembersGiven, now: datetime) -> MembersAdded:
            num_added = members.add_members(
                connection,
                organization_id=admin.organization_id,
                workspace_id=workspace_id,
                members=_roles_by_user(body),
                actor=admin.actor,
                now=now,
            )
            return MembersAdded(added_members_count=num_added)

        return await calls.make(request, MembersGiven, add)

    @router.patch(
        "/v1/admin/workspaces/{uuid}/users",
        **operation("Add members, or change their roles", MembersSet, path_id="uuid", body=MembersGiven),
    )
    async def set_users(request: Request) -> Response:
        admin = await calls.admin(request)
        workspace_id = id_of(request, "uuid")
        body = await body_of(request, MembersGiven)
        done = await calls.change(
            lambda connection, now: members.set_members(
                connection,
                organization_id=admin.organization_id,
                workspace_id=workspace_id,
                members=_roles_by_user(body),
                actor=admin.actor,
                now=now,
            )
        )
        return answer(MembersSet(added_members_count=done.num_added, updated_members_count=done.num_updated))

    @router.delete(
        "/v1/admin/workspaces/{uuid}/remove-users",
        **operation("Take members out", MembersRemoved, path_id="uuid", body=MembersNamed),
    )
    async def remove_users(request: Request) -> Response:
        admin = await calls.admin(request)
        workspace_id = id_of(request, "uuid")
        body = await body_of(request, MembersNamed)
        user_ids = list(dict.fromkeys(member.user_uuid for member in body.members))
        absent = await calls.change(
            lambda connection, now: members.remove_members(
                connection,
                organization_id=admin.organization_id,
                workspace_id=workspace_id,
                user_ids=user_ids,
                actor=admin.actor,
                now=now,
            )
        )
        return answer(
            MembersRemoved(deleted_members_count=len(user_ids) - len(absent), not_deleted_members=absent)
        )

    return router


def _page(connection: Connection, admin: Admin, query: WorkspacesQuery) -> WorkspacesAnswer:
    currency = find_currency(connection)
    found = workspaces.list_workspaces(
        connection,
        admin.organization_id,
        name=query.search,
        include_archived=query.is_archived,
        limit=query.page_size,
        offset=query.offset,
    )
    return WorkspacesAnswer(
        total=workspaces.count_workspaces(
            connection, admin.organization_id, name=query.search, include_archived=query.is_archived
        ),
        items=[shapes.workspace_answer(workspace, currency) for workspace in found],
        page=query.page,
        page_size=query.page_size,
    )


def _create(connection: Connection, admin: Admin, body: WorkspaceCreate, now: datetime) -> WorkspaceCreated:
    workspace = workspaces.create_workspace(
        connection,
        organization_id=admin.organization_id,
        name=body.name,
        description=body.description,
        icon=body.icon,
        admin_user_id=body.admin_user_id,
        add_all_members=body.add_all_org_members,
        actor=admin.actor,
        now=now,
    )
    raw_roles = WORKSPACE_ROLES.uuids([workspaces.ADMIN_ROLE])
    return WorkspaceCreated(
        **shapes.workspace_fields(workspace, find_currency(connection)),
        raw_roles=raw_roles,
        raw_role=raw_roles[0],
    )


def _roles_by_user(body: MembersGiven) -> dict[str, tuple[str, ...] | None]:
    roles: dict[str, tuple[str, ...] | None] = {}
    for position, given in enumerate(body.members):
        with blaming("members", position):
            if given.user_uuid in roles:
                raise Unacceptable("comes twice", param="user_uuid")
            roles[given.user_uuid] = WORKSPACE_ROLES.names_of(given)
    return roles
