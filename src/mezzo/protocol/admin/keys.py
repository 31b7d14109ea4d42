"""`/v1/admin/api-keys`: keys of workspaces."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field

from mezzo.protocol.admin.answers import Answer
from mezzo.protocol.admin.fields import Day, Id, QueryModel, ShortText
from mezzo.protocol.base import INT64_MAX, WireModel

MAX_KEYS = 1000


class KeysQuery(QueryModel):
    """name: a part of the name, or the last characters of the key."""

    limit: Annotated[int, Field(ge=1, le=MAX_KEYS)] = 100
    offset: Annotated[int, Field(ge=0, le=INT64_MAX)] = 0
    name: ShortText | None = None


class KeyCreate(WireModel):
    """expiration: the last day, in UTC, on which the key is good."""

    workspace_uuid: Id
    user_id: Id
    name: ShortText | None = None
    expiration: Day | None = None


class Action(Answer, frozen=True, kw_only=True):
    status: Literal["available"] = "available"


class Actions(Answer, frozen=True, kw_only=True):
    """What can be done with a key. Keys are not rotated here: make another and delete this one."""

    rotate: None
    delete: Action


class KeyAnswer(Answer, frozen=True, kw_only=True):
    """key: the secret, in the answer that made it and nowhere else."""

    key_id: str
    key: str | None
    name: str | None
    hidden_key: str
    created_at: dt.datetime
    expiration_date: dt.date | None
    actions: Actions


class ExtendedKey(KeyAnswer, frozen=True, kw_only=True):
    """created_by: the id of the user whose key it is, None for the operator's."""

    workspace_id: str | None
    workspace_name: str | None
    created_by: str | None
    product: Literal["API"]
    last_used: dt.date | None
    can_delete: bool


class KeysAnswer(Answer, frozen=True, kw_only=True):
    keys: list[ExtendedKey]
