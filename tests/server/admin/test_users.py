"""Users, their roles, and invitations: every success, key by key, and every refusal."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from mezzo.accounts import keys
from mezzo.store.tables import invitations
from tests.accounts.world import NOW, Organization
from tests.server.admin.admin_server import AdminClient, AdminServer
from tests.server.admin.calls import (
    MEMBER_KEYS,
    ORG,
    UTC_TEXT,
    WORK,
)


class TestUsers:
    def test_are_made_and_shown(self, organization: Organization, admin: AdminClient) -> None:
        made = admin.ok(
            "POST",
            "/users",
            [
                {
                    "email": "Ann@Example.org",
                    "first_name": "Ann",
                    "last_name": "Other",
                    "role_names": ["organization_admin"],
                    "subscription_types": ["CHAT"],
                },
                {"email": "bo@example.org", "first_name": "Bo", "last_name": "B", "roles": ["M", "B"]},
                {"email": "nobody", "first_name": "No", "last_name": "Body"},
            ],
        )
        assert set(made) == {"invalid_emails", "email_to_user_id"}
        assert made["invalid_emails"] == ["nobody"]
        assert set(made["email_to_user_id"]) == {"ann@example.org", "bo@example.org"}
        ann = made["email_to_user_id"]["ann@example.org"]
        shown = admin.get(f"/users/{ann.upper()}")
        assert set(shown) == MEMBER_KEYS | {"first_name", "last_name"}
        assert shown == {
            "uuid": ann,
            "oid_id": None,
            "name": "Ann Other",
            "email": "ann@example.org",
            "is_sso_outsider": None,
            "workspaces": [
                {
                    "uuid": organization.workspace_id,
                    "name": "Default workspace",
                    "is_default": True,
                    "raw_roles": [WORK["workspace_contributor"]],
                    "raw_role": WORK["workspace_contributor"],
                }
            ],
            "subscriptions": [{"type": "CHAT", "status": "ACTIVE", "member_has_access": True}],
            "raw_roles": [ORG["organization_admin"]],
            "raw_role": ORG["organization_admin"],
            "subscription_types": ["CHAT"],
            "created_at": UTC_TEXT,
            "first_name": "Ann",
            "last_name": "Other",
        }
        bo = admin.get(f"/users/{made['email_to_user_id']['bo@example.org']}")
        assert bo["raw_roles"] == [ORG["billing_manager"], ORG["member"]]
        assert {e.actor_type for e in organization.audit(event_types=["user.create"])} == {"API_KEY"}

    def test_all_or_none(self, organization: Organization, admin: AdminClient) -> None:
        organization.user("ann@example.org")
        person = {"first_name": "A", "last_name": "B"}
        assert "ann@example.org" in admin.refused(
            409,
            "POST",
            "/users",
            [{"email": "bo@example.org", **person}, {"email": "ANN@example.org", **person}],
        )
        (item,) = admin.refused(
            422,
            "POST",
            "/users",
            [{"email": "bo@example.org", **person}, {"email": "BO@example.org", **person}],
        )
        assert item == {
            "type": "value_error",
            "loc": ["body", 1, "email"],
            "msg": "bo@example.org comes twice",
        }
        assert [user["email"] for user in admin.get("/users")["members"]] == ["ann@example.org"]

    @pytest.mark.parametrize(
        ("change", "loc", "kind"),
        [
            ({"first_name": "x" * 256}, ["body", 0, "first_name"], "string_too_long"),
            ({"last_name": ""}, ["body", 0, "last_name"], "string_too_short"),
            ({"first_name": "a\0b"}, ["body", 0, "first_name"], "control_characters"),
            ({"first_name": 1}, ["body", 0, "first_name"], "string_type"),
            ({"first_name": "   "}, ["body", 0, "first_name"], "value_error"),
            ({"nickname": "A"}, ["body", 0, "nickname"], "extra_forbidden"),
            ({"role_names": ["owner"]}, ["body", 0, "role_names"], "value_error"),
            ({"role_names": ["member"], "roles": ["M"]}, ["body", 0, "roles"], "value_error"),
            ({"role": "X"}, ["body", 0, "role"], "value_error"),
            ({"subscription_types": ["TV"]}, ["body", 0, "subscription_types", 0], "literal_error"),
        ],
    )
    def test_what_does_not_fit_is_named(
        self, admin: AdminClient, change: dict[str, Any], loc: list[Any], kind: str
    ) -> None:
        good = {"email": "ann@example.org", "first_name": "A", "last_name": "B"}
        items = admin.refused(422, "POST", "/users", [{**good, **change}])
        assert [(item["loc"], item["type"]) for item in items] == [(loc, kind)]
        assert admin.get("/users")["total"] == 0

    def test_a_body_is_a_list(self, admin: AdminClient) -> None:
        (item,) = admin.refused(422, "POST", "/users", {"email": "ann@example.org"})
        assert (item["loc"], item["type"]) == (["body"], "list_type")
        (item,) = admin.refused(422, "POST", "/users", content=b"[{")
        assert item["type"] == "json_invalid"
        (item,) = admin.refused(422, "POST", "/users")
        assert item["type"] == "missing"

    def test_pages_hold_members_and_then_invitations(
        self, organization: Organization, admin: AdminClient
    ) -> None:
        for number in range(3):
            organization.user(f"user{number}@example.org", now=NOW + timedelta(seconds=number))
        admin.ok("POST", "/users-invite", {"email": "i0@example.org,i1@example.net"})

        def page(**query: Any) -> tuple[list[str], set[str], Any]:
            body = admin.get("/users", **query)
            assert set(body) == {"members", "invites", "total", "page", "page_size"}
            return (
                [m["email"] for m in body["members"]],
                {i["email"] for i in body["invites"]},
                (body["total"], body["page"], body["page_size"]),
            )

        everybody = ["user0@example.org", "user1@example.org", "user2@example.org"]
        assert page() == (everybody, {"i0@example.org", "i1@example.net"}, (5, 1, 25))
        assert page(page=1, page_size=2) == (everybody[:2], set(), (5, 1, 2))
        second, invited, _ = page(page=2, page_size=2)
        last, invited_last, _ = page(page=3, page_size=2)
        assert (second, last) == (everybody[2:], [])
        assert (len(invited), invited | invited_last) == (1, {"i0@example.org", "i1@example.net"})
        assert page(page=9) == ([], set(), (5, 9, 25))
        assert page(email="EXAMPLE.NET") == ([], {"i1@example.net"}, (1, 1, 25))
        assert page(email="ser1@") == (["user1@example.org"], set(), (1, 1, 25))

    def test_are_changed(self, organization: Organization, admin: AdminClient) -> None:
        ann = organization.user("ann@example.org").id
        body = admin.ok("PATCH", f"/users/{ann}", {"role_name": "billing_manager"})
        assert set(body) == MEMBER_KEYS
        assert body["raw_roles"] == [ORG["billing_manager"]]
        body = admin.ok("PATCH", f"/users/{ann}", {"subscription_types": ["CHAT", "MISTRAL_CODE"]})
        assert body["raw_roles"] == [ORG["billing_manager"]]
        assert body["subscription_types"] == ["CHAT", "MISTRAL_CODE"]
        assert admin.ok("PATCH", f"/users/{ann}", {}) == body
        assert (
            admin.ok("PATCH", f"/users/{ann}", {"roles": [ORG["member"].upper()]})["raw_role"]
            == ORG["member"]
        )
        admin.refused(422, "PATCH", f"/users/{ann}", {"subscription_types": ["API"]})
        (item,) = admin.refused(422, "PATCH", f"/users/{ann}", {"role_names": []})
        assert item["loc"] == ["body", "role_names"]

    def test_are_removed(self, organization: Organization, admin: AdminClient) -> None:
        ann = organization.user("ann@example.org").id
        key, _ = organization.key(user_id=ann)
        assert set(admin.ok("DELETE", f"/users/{ann}")) == {"message"}
        admin.refused(404, "DELETE", f"/users/{ann}")
        admin.refused(404, "GET", f"/users/{ann}")
        assert admin.get("/api-keys")["keys"] == []
        assert organization.read(keys.find_key, key.id).revoked_at == NOW


class TestInvitations:
    def test_are_made_shown_and_taken_back(
        self, organization: Organization, admin: AdminClient, server: AdminServer
    ) -> None:
        organization.user("ann@example.org")
        second = organization.workspace("Second").id
        done = admin.ok(
            "POST",
            "/users-invite",
            {
                "email": "Bo@example.org\nann@example.org, nobody,\ncy@example.org",
                "role_names": ["organization_admin"],
                "subscription_types": ["CHAT"],
                "subscription_type": "MISTRAL_CODE",
                "workspace_uuids": [second.upper()],
                "email_language": "pt_br",
                "subscription_seat_automatic_granting": True,
            },
        )
        assert done == {
            "invalid_emails": ["nobody"],
            "already_members": ["ann@example.org"],
            "invited_members_count": 2,
        }
        invites = {invite["email"]: invite for invite in admin.get("/users-invite")}
        assert set(invites) == {"bo@example.org", "cy@example.org"}
        bo = invites["bo@example.org"]
        assert bo == {
            "invite_uuid": bo["invite_uuid"],
            "email": "bo@example.org",
            "roles": [ORG["organization_admin"]],
            "role": ORG["organization_admin"],
        }
        shown = next(i for i in admin.get("/users")["invites"] if i["email"] == "bo@example.org")
        assert shown == {
            "uuid": bo["invite_uuid"],
            "raw_roles": [ORG["organization_admin"]],
            "raw_role": ORG["organization_admin"],
            "email": "bo@example.org",
            "expired": False,
            "created_at": UTC_TEXT,
            "workspace_uuids": [second],
        }
        with organization.database.read() as connection:
            row = connection.execute(
                sa.select(invitations).where(invitations.c.id == bo["invite_uuid"])
            ).one()
        assert (row.language, row.subscription_types) == ("pt_br", ["CHAT", "MISTRAL_CODE"])
        server.now = NOW + timedelta(days=7)
        assert all(invite["expired"] for invite in admin.get("/users")["invites"])
        server.now = NOW
        assert set(admin.ok("DELETE", f"/users-invite/{bo['invite_uuid']}")) == {"message"}
        admin.refused(404, "DELETE", f"/users-invite/{bo['invite_uuid']}")
        assert [invite["email"] for invite in admin.get("/users-invite")] == ["cy@example.org"]

    @pytest.mark.parametrize(
        ("change", "loc"),
        [
            ({"email": ""}, ["body", "email"]),
            ({"email": None}, ["body", "email"]),
            ({"email_language": "tlh"}, ["body", "email_language"]),
            ({"workspace_uuids": ["second"]}, ["body", "workspace_uuids", 0]),
            (
                {"subscription_seat_automatic_granting": "yes"},
                ["body", "subscription_seat_automatic_granting"],
            ),
            ({"role_name": "workspace_admin"}, ["body", "role_name"]),
            ({"message": "Come!"}, ["body", "message"]),
        ],
    )
    def test_what_does_not_fit_is_named(
        self, admin: AdminClient, change: dict[str, Any], loc: list[Any]
    ) -> None:
        items = admin.refused(422, "POST", "/users-invite", {"email": "bo@example.org", **change})
        assert [item["loc"] for item in items] == [loc]
        assert admin.get("/users-invite") == []

    def test_a_hundred_at_once(self, admin: AdminClient) -> None:
        addresses = [f"u{number}@example.org" for number in range(101)]
        (item,) = admin.refused(422, "POST", "/users-invite", {"email": ",".join(addresses)})
        assert (item["loc"], item["msg"]) == (["body", "email"], "at most 100 addresses at once")
        people = [{"email": email, "first_name": "A", "last_name": "B"} for email in addresses]
        (item,) = admin.refused(422, "POST", "/users", people)
        assert (item["loc"], item["type"]) == (["body"], "too_long")
        assert admin.get("/users")["total"] == 0
        done = admin.ok("POST", "/users-invite", {"email": "\n".join(addresses[1:])})
        assert done["invited_members_count"] == 100

    def test_another_organisation_s_workspace_is_not_there(
        self, other: Organization, admin: AdminClient
    ) -> None:
        body = {"email": "bo@example.org", "workspace_uuids": [other.workspace_id]}
        admin.refused(404, "POST", "/users-invite", body)
        assert admin.get("/users-invite") == []


def test_roles(admin: AdminClient) -> None:
    body = admin.get("/roles")
    assert set(body) == {"workspace_roles", "organization_roles"}
    for roles in body.values():
        for role in roles:
            assert set(role) == {"name", "uuid", "description", "is_custom_role"}
            assert role["is_custom_role"] is False
            assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", role["uuid"])
    assert {role["name"] for role in body["organization_roles"]} == {
        "member",
        "billing_manager",
        "organization_admin",
    }
    assert {role["name"] for role in body["workspace_roles"]} == {
        *("user", "dev", "mistral_code_user", "workspace_contributor", "workspace_admin", "billing"),
        *("observability_viewer", "contributor", "dev_contributor", "cloud_user", "workflow_executor"),
    }
