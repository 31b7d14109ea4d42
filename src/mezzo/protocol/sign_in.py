"""What `/auth/*` takes and answers. Passwords and secrets are values that print as stars."""

from __future__ import annotations

from datetime import datetime

import msgspec
from pydantic import SecretStr

from mezzo.protocol.admin.fields import Name
from mezzo.protocol.base import WireModel

_encode = msgspec.json.Encoder().encode


class NoFields(WireModel):
    """A body that says nothing: `{}`."""


class SignInRequest(WireModel):
    email: str
    password: SecretStr


class AcceptInvitationRequest(WireModel):
    """secret: of the invitation's link."""

    secret: SecretStr
    first_name: Name
    last_name: Name
    password: SecretStr


class PasswordChange(WireModel):
    old: SecretStr
    new: SecretStr


class OrganizationName(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str


class WorkspaceRoles(msgspec.Struct, frozen=True, kw_only=True):
    """roles: of the user in this workspace."""

    id: str
    name: str
    is_default: bool
    roles: list[str]


class SignedInUser(msgspec.Struct, frozen=True, kw_only=True):
    """roles: in the organisation. workspaces: those of which they are a member."""

    id: str
    email: str
    first_name: str
    last_name: str
    organization: OrganizationName
    roles: list[str]
    workspaces: list[WorkspaceRoles]


class SessionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """expires_at: when they must sign in again, with time zone."""

    user: SignedInUser
    expires_at: datetime

    def to_json(self) -> bytes:
        """Return the body, UTF-8."""
        return _encode(self)


SIGN_IN_BODIES = (SignInRequest, AcceptInvitationRequest, PasswordChange, NoFields)
SIGN_IN_ANSWERS = (SessionAnswer,)
