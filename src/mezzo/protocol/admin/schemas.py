"""The bodies and answers of the admin API, for its description."""

from __future__ import annotations

from pydantic import BaseModel

from mezzo.protocol.admin.answers import Answer, Detail, Message, Roles
from mezzo.protocol.admin.audit import AuditEntryAnswer
from mezzo.protocol.admin.keys import KeyAnswer, KeyCreate, KeysAnswer
from mezzo.protocol.admin.limits import RateLimitAnswer, SpendLimitAnswer, SpendLimitUpdate
from mezzo.protocol.admin.usage import UsageReport
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
)
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
    WorkspaceUpdate,
)

BODIES: tuple[type[BaseModel], ...] = (
    InviteCreate,
    KeyCreate,
    MembersCreate,
    MembersGiven,
    MembersNamed,
    MemberUpdate,
    SpendLimitUpdate,
    WorkspaceCreate,
    WorkspaceUpdate,
)
ANSWERS: tuple[type[Answer], ...] = (
    AuditEntryAnswer,
    Detail,
    InviteAnswer,
    InvitesCreated,
    KeyAnswer,
    KeysAnswer,
    MemberAnswer,
    MembersAdded,
    MembersAnswer,
    MembersCreated,
    MembersRemoved,
    MembersSet,
    Message,
    RateLimitAnswer,
    Roles,
    SpendLimitAnswer,
    UsageReport,
    UserAnswer,
    WorkspaceAnswer,
    WorkspaceCreated,
    WorkspacesAnswer,
)
