"""`/v1/admin/audit-logs`: who changed what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from mezzo.protocol.admin.answers import Answer
from mezzo.protocol.admin.fields import Id, Moment, QueryModel, Several, ShortText

MAX_ENTRIES = 1000
_MAX_VALUES = 100

ActorType = Literal["HUMAN", "API_KEY", "OTHER"]


class AuditQuery(QueryModel):
    """Which entries. `after` and `before` exclude the moment they name, and no two entries share one: to page, give
    the `created_at` of the last entry."""

    actor_type: Annotated[list[ActorType], Field(max_length=_MAX_VALUES), Several] | None = None
    event_type: Annotated[list[ShortText], Field(max_length=_MAX_VALUES), Several] | None = None
    target_type: Annotated[list[ShortText], Field(max_length=_MAX_VALUES), Several] | None = None
    actor_user_uuid: Id | None = None
    sort: Literal["ascending", "descending"] = "descending"
    after: Moment | None = None
    before: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_ENTRIES)] = 20


class AuditEntryAnswer(Answer, frozen=True, kw_only=True):
    created_at: datetime
    actor_type: ActorType
    actor_metadata: dict[str, str]
    event_type: str
    event_metadata: dict[str, str]
    target_type: str
    target_metadata: dict[str, str]
    log_id: int
    organization_uuid: str | None
    workspace_uuid: str | None
