"""Fields that several bodies and queries of the admin API have: texts, ids, pages, roles, seats."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from mezzo.protocol.base import WireModel

MAX_NAME_LENGTH = 255
MAX_ICON_LENGTH = 2
MAX_PAGE_SIZE = 100
# Each call is one transaction, for which other writers wait: a second of it, at most.
MAX_PEOPLE = 100
MAX_MEMBERS = 500
# So that (page - 1) * page_size fits the integers of every database.
_MAX_PAGE = 1_000_000_000
_MAX_ROLES = 32
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

PlanType = Literal["API", "CHAT", "ON_PREMISE", "LICENSE", "MISTRAL_CODE"]
SeatType = Literal["CHAT", "MISTRAL_CODE"]


def has_control_characters(text: str) -> bool:
    """Tell whether a text has characters that move a cursor, end a line or end a string somewhere."""
    return any(unicodedata.category(character) == "Cc" for character in text)


def _refuse_control_characters(text: str) -> str:
    if has_control_characters(text):
        raise PydanticCustomError("control_characters", "Input should have no control characters")
    return text


def _require_day(value: Any) -> Any:
    # pydantic would read numbers, too, as seconds since 1970.
    if not (isinstance(value, str) and _DAY.fullmatch(value)):
        raise PydanticKnownError("date_parsing", {"error": "write it as YYYY-MM-DD"})
    return value


def _as_uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise PydanticKnownError("uuid_parsing", {"error": "write it as 8-4-4-4-12 digits"}) from None


def _in_utc(moment: dt.datetime) -> dt.datetime:
    try:
        return moment.astimezone(dt.UTC)
    except OverflowError:
        raise PydanticKnownError("datetime_parsing", {"error": "it is before or after all years"}) from None


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Plain = AfterValidator(_refuse_control_characters)
ShortText = Annotated[str, Field(max_length=MAX_NAME_LENGTH), Plain]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH), Plain]
Icon = Annotated[str, Field(max_length=MAX_ICON_LENGTH), Plain]
Id = Annotated[str, AfterValidator(_as_uuid), WithJsonSchema({"type": "string", "format": "uuid"})]
"""A UUID, read in any of its forms and kept in the usual one."""
Day = Annotated[dt.date, BeforeValidator(_require_day)]
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A moment with a time zone, in UTC."""
Several = BeforeValidator(_as_list)
"""Marks a list in a query: `a=1&a=2`, or `a=1` for a list of one."""


class QueryModel(BaseModel):
    """Base of what stands after the `?`: unknown names are refused; all values are texts, read as their types."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PageQuery(QueryModel):
    """Which part of a long list. Pages start at 1."""

    page: Annotated[int, Field(ge=1, le=_MAX_PAGE)] = 1
    page_size: Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE)] = 25

    @property
    def offset(self) -> int:
        """How many come before the page."""
        return (self.page - 1) * self.page_size


class RolesGiven(WireModel):
    """Roles in one of the forms in which they may come. The singular forms are deprecated; what they name is added.

    role_names excludes roles, role_name excludes role. roles and role: ids as in GET /roles, or legacy letters.
    """

    role_names: Annotated[list[ShortText], Field(max_length=_MAX_ROLES)] | None = None
    roles: Annotated[list[ShortText], Field(max_length=_MAX_ROLES)] | None = None
    role_name: ShortText | None = None
    role: ShortText | None = None
