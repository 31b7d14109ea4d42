"""`/v1/admin/users`, `/v1/admin/users-invite` and `/v1/admin/roles`."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response

from mezzo.accounts import invitations, users
from mezzo.accounts.errors import Conflict, Unacceptable
from mezzo.accounts.roles import ORGANIZATION_ROLES
from mezzo.accounts.text import check_email, split_emails
from mezzo.protocol.admin.answers import Message, Roles, list_to_json
from mezzo.protocol.admin.fields import MAX_PEOPLE
from mezzo.protocol.admin.users import (
    InviteAnswer,
    InviteCreate,
    InvitesCreated,
    MemberAnswer,
    MembersAnswer,
    MembersCreate,
    MembersCreated,
    MemberUpdate,
    UserAnswer,
    UsersQuery,
)
from mezzo.server.routes.admin import shapes
from mezzo.server.routes.admin.calls import Admin, AdminCalls, answer, blaming, body_of, id_of, query_of
from mezzo.server.routes.admin.operations import operation


def user_routes(calls: AdminCalls) -> APIRouter:
    """Return the routes of members, invitations and roles."""
    router = APIRouter()

    @router.get(
        "/v1/admin/users", **operation("List members and invitations", MembersAnswer, query=UsersQuery)
    )
    async def list_users(request: Request) -> Response:
        admin = await calls.admin(request)
        query = query_of(request, UsersQuery)
        page = await calls.read(lambda connection, now: _page(connection, admin.organization_id, query, now))
        return answer(page)

    @router.post("/v1/admin/users", **operation("Make members", MembersCreated, body=MembersCreate))
    async def create_users(request: Request) -> Response:
        return await calls.make(request, MembersCreate, _create)

    @router.get("/v1/admin/users/{user_id}", **operation("Get a member", UserAnswer, path_id="user_id"))
    async def get_user(request: Request) -> Response:
        admin = await calls.admin(request)
        user_id = id_of(request, "user_id")
        user = await calls.read(
            lambda connection, now: users.find_user(connection, admin.organization_id, user_id)
        )
        return answer(shapes.member_with_names(user))

    @router.patch(
        "/v1/admin/users/{user_id}",
        **operation("Change roles and seats of a member", MemberAnswer, path_id="user_id", body=MemberUpdate),
    )
    async def update_user(request: Request) -> Response:
        admin = await calls.admin(request)
        user_id = id_of(request, "user_id")
        body = await body_of(request, MemberUpdate)
        user = await calls.change(
            lambda connection, now: users.update_user(
                connection,
                organization_id=admin.organization_id,
                user_id=user_id,
                roles=ORGANIZATION_ROLES.names_of(body),
                subscription_types=body.subscription_types,
                actor=admin.actor,
                now=now,
            )
        )
        return answer(shapes.member(user))

    @router.delete(
        "/v1/admin/users/{user_id}",
        **operation("Take a member out of the organization", Message, path_id="user_id"),
    )
    async def delete_user(request: Request) -> Response:
        admin = await calls.admin(request)
        user_id = id_of(request, "user_id")
        await calls.change(
            lambda connection, now: users.remove_user(
                connection,
                organization_id=admin.organization_id,
                user_id=user_id,
                actor=admin.actor,
                now=now,
            )
        )
        return answer(Message(message="User removed from the organization"))

    @router.post("/v1/admin/users-invite", **operation("Invite people", InvitesCreated, body=InviteCreate))
    async def invite(request: Request) -> Response:
        return await calls.make(request, InviteCreate, _invite)

    @router.get("/v1/admin/users-invite", **operation("List invitations", [InviteAnswer]))
    async def list_invites(request: Request) -> Response:
        admin = await calls.admin(request)
        found = await calls.read(
            lambda connection, now: invitations.list_invitations(connection, admin.organization_id)
        )
        return Response(list_to_json([shapes.invite(one) for one in found]), media_type="application/json")

    @router.delete(
        "/v1/admin/users-invite/{invite_uuid}",
        **operation("Take an invitation back", Message, path_id="invite_uuid"),
    )
    async def delete_invite(request: Request) -> Response:
        admin = await calls.admin(request)
        invitation_id = id_of(request, "invite_uuid")
        await calls.change(
            lambda connection, now: invitations.revoke_invitation(
                connection,
                organization_id=admin.organization_id,
                invitation_id=invitation_id,
                actor=admin.actor,
                now=now,
            )
        )
        return answer(Message(message="Invitation revoked"))

    @router.get("/v1/admin/roles", **operation("List the roles that can be given", Roles))
    async def list_roles(request: Request) -> Response:
        await calls.admin(request)
        return answer(shapes.all_roles())

    return router


def _page(connection: Connection, organization_id: str, query: UsersQuery, now: datetime) -> MembersAnswer:
    """Return a page of the members with the invitations after them, as one list."""
    num_users = users.count_users(connection, organization_id, email=query.email)
    num_invitations = invitations.count_invitations(connection, organization_id, email=query.email)
    members = users.list_users(
        connection, organization_id, email=query.email, limit=query.page_size, offset=query.offset
    )
    invites = invitations.list_invitations(
        connection,
        organization_id,
        email=query.email,
        limit=query.page_size - len(members),
        offset=max(0, query.offset - num_users),
    )
    return MembersAnswer(
        members=[shapes.member(user) for user in members],
        invites=[shapes.invite_of_list(invitation, now) for invitation in invites],
        total=num_users + num_invitations,
        page=query.page,
        page_size=query.page_size,
    )


def _create(connection: Connection, admin: Admin, body: MembersCreate, now: datetime) -> MembersCreated:
    """Make all of them, or none; what is no address is told apart."""
    invalid: dict[str, None] = {}
    user_ids: dict[str, str] = {}
    for position, given in enumerate(body.root):
        with blaming(position):
            roles = ORGANIZATION_ROLES.names_of(given)
            try:
                address = check_email(given.email)
            except Unacceptable:
                invalid[given.email] = None
                continue
            if address in user_ids:
                raise Unacceptable(f"{address} comes twice", param="email")
            user_ids[address] = users.create_user(
                connection,
                organization_id=admin.organization_id,
                email=address,
                first_name=given.first_name,
                last_name=given.last_name,
                roles=roles,
                subscription_types=given.subscription_types or (),
                actor=admin.actor,
                now=now,
            ).id
    return MembersCreated(invalid_emails=list(invalid), email_to_user_id=user_ids)


def _invite(connection: Connection, admin: Admin, body: InviteCreate, now: datetime) -> InvitesCreated:
    addresses, invalid = split_emails(body.email)
    if len(addresses) > MAX_PEOPLE:
        raise Unacceptable(f"at most {MAX_PEOPLE} addresses at once", param="email")
    seats = [*(body.subscription_types or ()), *((body.subscription_type,) if body.subscription_type else ())]
    roles = ORGANIZATION_ROLES.names_of(body)
    members = []
    for address in addresses:
        try:
            invitations.invite(
                connection,
                organization_id=admin.organization_id,
                email=address,
                roles=roles,
                subscription_types=seats,
                workspace_ids=body.workspace_uuids or (),
                language=body.email_language,
                actor=admin.actor,
                now=now,
            )
        except Conflict:
            members.append(address)
    return InvitesCreated(
        invalid_emails=invalid,
        already_members=members,
        invited_members_count=len(addresses) - len(members),
    )
