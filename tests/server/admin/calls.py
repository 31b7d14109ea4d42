"""One of everything, and one good call of each endpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mezzo.accounts.invitations import invite
from mezzo.accounts.roles import ORGANIZATION_ROLES, WORKSPACE_ROLES
from tests.accounts.world import Organization

ORG = {role.name: role.uuid for role in ORGANIZATION_ROLES}
WORK = {role.name: role.uuid for role in WORKSPACE_ROLES}
NOBODY = "11111111-2222-4333-8444-555555555555"
UTC_TEXT = "2026-09-01T12:00:00Z"

MEMBER_KEYS = {
    "uuid",
    "oid_id",
    "name",
    "email",
    "is_sso_outsider",
    "workspaces",
    "subscriptions",
    "raw_roles",
    "raw_role",
    "subscription_types",
    "created_at",
}
WORKSPACE_KEYS = {"uuid", "name", "description", "icon", "members_count", "spend_limit", "is_default"}
KEY_KEYS = {"key_id", "key", "name", "hidden_key", "created_at", "expiration_date", "actions"}
EXTENDED_KEYS = KEY_KEYS | {
    "workspace_id",
    "workspace_name",
    "created_by",
    "product",
    "last_used",
    "can_delete",
}

# Every endpoint: method, path with ids of things that exist, a body that would do.
Call = tuple[str, str, Any]


def furnish(organization: Organization) -> SimpleNamespace:
    """Give an organisation one of everything."""
    user = organization.user("ann@example.org")
    second = organization.workspace("Second", admin_user_id=user.id)
    key, secret = organization.key(user_id=user.id, workspace_id=second.id, name="ci")
    invitation, _ = organization.change(invite, email="bo@example.org")
    return SimpleNamespace(user=user.id, workspace=second.id, key=key.id, secret=secret, invite=invitation.id)


def all_calls(things: SimpleNamespace) -> list[Call]:
    """Return one good call of each endpoint."""
    members = {"members": [{"user_uuid": things.user}]}
    return [
        ("GET", "/users", None),
        ("POST", "/users", [{"email": "new@example.org", "first_name": "A", "last_name": "B"}]),
        ("GET", f"/users/{things.user}", None),
        ("PATCH", f"/users/{things.user}", {"role_names": ["billing_manager"]}),
        ("POST", "/users-invite", {"email": "cy@example.org"}),
        ("GET", "/users-invite", None),
        ("DELETE", f"/users-invite/{things.invite}", None),
        ("GET", "/roles", None),
        ("GET", "/usage", None),
        ("GET", "/workspaces", None),
        ("POST", "/workspaces", {"name": "Third", "admin_user_id": things.user}),
        ("PATCH", f"/workspaces/{things.workspace}", {"name": "2nd"}),
        ("DELETE", f"/workspaces/{things.workspace}/remove-users", members),
        ("POST", f"/workspaces/{things.workspace}/add-users", members),
        ("PATCH", f"/workspaces/{things.workspace}/users", members),
        ("GET", "/api-keys", None),
        ("POST", "/api-keys", {"workspace_uuid": things.workspace, "user_id": things.user}),
        ("DELETE", f"/api-keys/{things.key}", None),
        ("GET", "/rate-limit", None),
        ("GET", "/spend-limit", None),
        ("POST", "/spend-limit", {"amount": 5}),
        ("GET", "/audit-logs", None),
        ("DELETE", f"/workspaces/{things.workspace}", None),
        ("DELETE", f"/users/{things.user}", None),
    ]
