"""`/v1/admin/workspaces`: workspaces and who is in them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mezzo.protocol.admin.answers import Answer
from mezzo.protocol.admin.fields import MAX_MEMBERS, Icon, Id, Name, PageQuery, RolesGiven, ShortText
from mezzo.protocol.base import Bool, WireModel


class WorkspacesQuery(PageQuery):
    """is_archived: archived ones too. search: a part of the name."""

    is_archived: bool = False
    search: ShortText | None = None


class WorkspaceCreate(WireModel):
    name: Name
    description: ShortText | None = None
    icon: Icon | None = None
    add_all_org_members: Bool = False
    admin_user_id: Id


class WorkspaceUpdate(WireModel):
    """What to change; what is left out or null stays as it is, an empty text takes description or icon away."""

    name: Name | None = None
    description: ShortText | None = None
    icon: Icon | None = None


class MemberGiven(RolesGiven):
    user_uuid: Id


class MembersGiven(WireModel):
    members: Annotated[list[MemberGiven], Field(max_length=MAX_MEMBERS)]


class MemberNamed(WireModel):
    user_uuid: Id


class MembersNamed(WireModel):
    members: Annotated[list[MemberNamed], Field(max_length=MAX_MEMBERS)]


class SpendLimitOfWorkspace(Answer, frozen=True, kw_only=True):
    """value: in whole units of the currency, None without a limit of its own."""

    value: float | None
    currency: str
    no_monthly_limit: bool


class WorkspaceAnswer(Answer, frozen=True, kw_only=True):
    uuid: str
    name: str
    description: str | None
    icon: str | None
    members_count: int
    spend_limit: SpendLimitOfWorkspace
    is_default: bool


class WorkspaceCreated(WorkspaceAnswer, frozen=True, kw_only=True):
    """raw_roles: those of the administrator that was named, as ids."""

    raw_roles: list[str]
    raw_role: str


class WorkspacesAnswer(Answer, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    total: int
    items: list[WorkspaceAnswer]
    page: int
    page_size: int


class MembersAdded(Answer, frozen=True, kw_only=True):
    added_members_count: int


class MembersSet(Answer, frozen=True, kw_only=True):
    """updated_members_count: members whose roles are others than before."""

    added_members_count: int
    updated_members_count: int


class MembersRemoved(Answer, frozen=True, kw_only=True):
    """not_deleted_members: ids of users who were no members."""

    deleted_members_count: int
    not_deleted_members: list[str]
