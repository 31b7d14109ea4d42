"""What every answer of the admin API is: a struct whose keys are all on the wire, None as `null`."""

from __future__ import annotations

from typing import Literal

import msgspec

_encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the answers."""

    def to_json(self) -> bytes:
        """Return the body, UTF-8."""
        return _encode(self)


class Message(Answer, frozen=True, kw_only=True):
    message: str


class Detail(Answer, frozen=True, kw_only=True):
    detail: str


class RoleInfo(Answer, frozen=True, kw_only=True):
    """A role that can be given. `uuid` is what `roles` of other bodies hold."""

    name: str
    uuid: str
    description: str
    is_custom_role: bool


class Roles(Answer, frozen=True, kw_only=True):
    workspace_roles: list[RoleInfo]
    organization_roles: list[RoleInfo]


class WorkspaceOfMember(Answer, frozen=True, kw_only=True):
    """A workspace that somebody is a member of. raw_roles: ids as in GET /roles; raw_role: the strongest of them."""

    uuid: str
    name: str
    is_default: bool
    raw_roles: list[str]
    raw_role: str


class Subscription(Answer, frozen=True, kw_only=True):
    """A seat. mezzo sells none and limits none: it keeps which were given."""

    type: str
    status: Literal["ACTIVE"]
    member_has_access: bool


def list_to_json(answers: list[Answer]) -> bytes:
    """Return the body of an answer that is an array."""
    return _encode(answers)
