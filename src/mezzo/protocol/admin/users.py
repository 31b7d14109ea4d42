"""`/v1/admin/users` and `/v1/admin/users-invite`: people, and those who were invited."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, RootModel

from mezzo.protocol.admin.answers import Answer, Subscription, WorkspaceOfMember
from mezzo.protocol.admin.fields import (
    MAX_PEOPLE,
    Id,
    Name,
    PageQuery,
    PlanType,
    RolesGiven,
    SeatType,
    ShortText,
)
from mezzo.protocol.base import Bool

# What is no address is repeated in the answer.
_MAX_INVITED_LENGTH = MAX_PEOPLE * 300

Language = Literal["en", "fr", "es", "de", "it", "pt_br", "pl", "ar", "nl"]


class UsersQuery(PageQuery):
    """email: a part of the address."""

    email: ShortText | None = None


class MemberCreate(RolesGiven):
    """Somebody to make. Whether `email` is an address is told in the answer."""

    email: Name
    first_name: Name
    last_name: Name
    subscription_types: list[PlanType] | None = None


class MembersCreate(RootModel[Annotated[list[MemberCreate], Field(max_length=MAX_PEOPLE)]]):
    model_config = ConfigDict(frozen=True)


class MemberUpdate(RolesGiven):
    """What to change of a member; what is left out or null stays as it is."""

    subscription_types: list[SeatType] | None = None


class InviteCreate(RolesGiven):
    """Whom to invite. email: one address, or up to MAX_PEOPLE with commas or line ends between them.

    subscription_seat_automatic_granting has no effect: seats are not limited here, so each is granted.
    """

    email: Annotated[str, Field(min_length=1, max_length=_MAX_INVITED_LENGTH)]
    subscription_type: PlanType | None = None
    subscription_types: list[PlanType] | None = None
    workspace_uuids: Annotated[list[Id], Field(max_length=MAX_PEOPLE)] | None = None
    email_language: Language = "en"
    subscription_seat_automatic_granting: Bool = False


class MemberAnswer(Answer, frozen=True, kw_only=True):
    """A member. oid_id: the subject at the identity provider, once somebody has signed in by it."""

    uuid: str
    oid_id: str | None
    name: str | None
    email: str | None
    is_sso_outsider: bool | None
    workspaces: list[WorkspaceOfMember]
    subscriptions: list[Subscription]
    raw_roles: list[str]
    raw_role: str
    subscription_types: list[str]
    created_at: datetime


class UserAnswer(MemberAnswer, frozen=True, kw_only=True):
    first_name: str
    last_name: str


class InviteOfList(Answer, frozen=True, kw_only=True):
    uuid: str
    raw_roles: list[str]
    raw_role: str
    email: str
    expired: bool
    created_at: datetime
    workspace_uuids: list[str]


class MembersAnswer(Answer, frozen=True, kw_only=True):
    """A page of members, and of invitations after them. total: of both together."""

    members: list[MemberAnswer]
    invites: list[InviteOfList]
    total: int
    page: int
    page_size: int


class MembersCreated(Answer, frozen=True, kw_only=True):
    invalid_emails: list[str]
    email_to_user_id: dict[str, str]


class InvitesCreated(Answer, frozen=True, kw_only=True):
    invalid_emails: list[str]
    already_members: list[str]
    invited_members_count: int


class InviteAnswer(Answer, frozen=True, kw_only=True):
    invite_uuid: str
    email: str
    roles: list[str]
    role: str
