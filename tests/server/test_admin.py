"""The admin API: every endpoint's success, key by key, and every refusal."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from mezzo.accounts import keys, limits, workspaces
from mezzo.accounts.access import EVERY_MODEL, RateLimits
from mezzo.accounts.errors import (
    AccountsError,
    Conflict,
    NotAdmitted,
    NotThere,
    TooBusy,
    TooManyAttempts,
    Unacceptable,
)
from mezzo.accounts.invitations import invite
from mezzo.accounts.roles import ORGANIZATION_ROLES, WORKSPACE_ROLES
from mezzo.kit.secrets import mask
from mezzo.server.errors import accounts_error
from mezzo.store.database import Database
from mezzo.store.tables import api_keys, invitations, spend
from tests.accounts.world import NOW, Organization, make_organization, set_up
from tests.databases import new_sqlite
from tests.server.admin_server import MODEL_ID, AdminClient, AdminServer, operation_of
from tests.server.live import UUID7, wait_until

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


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminServer]:
    if request.param == "sqlite":
        database = Database(new_sqlite(tmp_path_factory.mktemp("admin")))
    else:
        database = Database(request.getfixturevalue("postgres").make())
    set_up(database)
    running = AdminServer(database)
    running.start()
    yield running
    running.stop()
    database.dispose()


@pytest.fixture(autouse=True)
def _clock(server: AdminServer) -> None:
    server.now = NOW


@pytest.fixture
def organization(server: AdminServer) -> Organization:
    return make_organization(server.database)


@pytest.fixture
def other(server: AdminServer) -> Organization:
    return make_organization(server.database)


@pytest.fixture
def admin(server: AdminServer, organization: Organization) -> AdminClient:
    return AdminClient(server, organization.admin_key(name="ops")[1])


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


class TestKeys:
    """Who may call at all."""

    def test_the_list_of_calls_is_complete(self, server: AdminServer) -> None:
        described = {
            (method.upper(), path)
            for path, operations in server.description["paths"].items()
            for method in operations
        }
        things = SimpleNamespace(user="u", workspace="w", key="k", secret="s", invite="i")
        called = {
            operation_of(server.description, method, path)["operationId"]
            for method, path, _ in all_calls(things)
        }
        assert len(described) == len(called) == len(all_calls(things)) == 24

    def test_every_endpoint_takes_an_admin_key_and_nothing_else(
        self, server: AdminServer, organization: Organization, admin: AdminClient
    ) -> None:
        things = furnish(organization)
        before = organization.audit()
        _, ended = organization.admin_key()
        with organization.database.write() as connection:
            connection.execute(
                sa.update(api_keys)
                .where(api_keys.c.hidden == mask(ended), api_keys.c.kind == "admin")
                .values(expires_at=NOW)
            )
        for key, status, detail in (
            (None, 401, "Unauthorized"),
            ("", 401, "Unauthorized"),
            ("mza-nobody", 401, "Invalid API Key"),
            (ended, 401, "Invalid API Key"),
            (things.secret, 403, "This endpoint needs an admin API key"),
        ):
            client = AdminClient(server, key)
            for method, path, body in all_calls(things):
                assert client.refused(status, method, path, body) == detail
        assert len(organization.audit()) == len(before) + 1  # the key that ended
        archive = ("DELETE", f"/workspaces/{things.workspace}")
        for method, path, body in all_calls(things):
            response = admin.call(method, path, body)
            wanted = 204 if (method, path) == archive else 200
            assert response.status_code == wanted, (method, path, response.text)
            assert UUID7.fullmatch(response.headers["mistral-correlation-id"])

    def test_either_header_will_do_and_two_keys_will_not(
        self, server: AdminServer, organization: Organization
    ) -> None:
        _, first = organization.admin_key()
        _, second = organization.admin_key()

        def status(*headers: tuple[str, str]) -> int:
            return server.http.get("/roles", headers=list(headers)).status_code

        assert status(("X-Api-Key", first)) == 200
        assert status(("Authorization", f"bearer {first}")) == 200
        assert status(("x-api-key", first), ("authorization", f"Bearer {first}")) == 200
        assert status(("x-api-key", first), ("authorization", f"Bearer {second}")) == 401
        assert status(("x-api-key", first), ("x-api-key", second)) == 401
        assert status(("x-api-key", first), ("authorization", f"Basic {first}")) == 401
        assert status(("authorization", first)) == 401

    def test_a_revoked_admin_key_is_out(self, organization: Organization, admin: AdminClient) -> None:
        (key,) = organization.read(keys.list_keys, kind="admin")
        admin.get("/roles")
        organization.change(keys.revoke_key, key_id=key.id)

        wait_until(lambda: admin.call("GET", "/roles").status_code == 401, timeout_s=1)

    def test_keys_come_before_bodies(self, server: AdminServer) -> None:
        AdminClient(server, None).refused(401, "POST", "/users", content=b"{")

    def test_what_is_not_had_is_no_route(self, server: AdminServer, admin: AdminClient) -> None:
        for method, path in (
            ("POST", "/scim/sync"),
            ("GET", "/scim/sync/1"),
            ("GET", "/analytics/vibe/users"),
            ("GET", "/user-groups"),
            ("PUT", "/users"),
            ("GET", "/users/"),
            ("GET", ""),
        ):
            response = admin.send(method, path)
            assert response.status_code == 404, path
            assert set(response.json()) == {"message", "request_id"}


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


class TestWorkspaces:
    def test_are_made_shown_changed_and_archived(
        self, organization: Organization, admin: AdminClient, server: AdminServer
    ) -> None:
        ann = organization.user("ann@example.org").id
        organization.user("bo@example.org")
        server.now = NOW + timedelta(seconds=1)
        made = admin.ok(
            "POST",
            "/workspaces",
            {"name": "Research", "icon": "🧪", "admin_user_id": ann, "add_all_org_members": True},
        )
        assert set(made) == WORKSPACE_KEYS | {"raw_roles", "raw_role"}
        assert made == {
            "uuid": made["uuid"],
            "name": "Research",
            "description": None,
            "icon": "🧪",
            "members_count": 2,
            "spend_limit": {"value": None, "currency": "USD", "no_monthly_limit": True},
            "is_default": False,
            "raw_roles": [WORK["workspace_admin"]],
            "raw_role": WORK["workspace_admin"],
        }
        organization.change(
            limits.set_workspace_limit, workspace_id=made["uuid"], monthly_limit=12_500_000_000
        )
        changed = admin.ok("PATCH", f"/workspaces/{made['uuid']}", {"description": "Papers", "name": None})
        assert set(changed) == WORKSPACE_KEYS
        assert (changed["name"], changed["description"]) == ("Research", "Papers")
        assert changed["spend_limit"] == {"value": 12.5, "currency": "USD", "no_monthly_limit": False}

        listed = admin.get("/workspaces")
        assert set(listed) == {"object", "total", "items", "page", "page_size"}
        assert (listed["object"], listed["total"], listed["page"], listed["page_size"]) == ("list", 2, 1, 25)
        assert [item["name"] for item in listed["items"]] == ["Default workspace", "Research"]
        assert listed["items"][1] == changed
        assert admin.get("/workspaces", page=2, page_size=1)["items"] == [changed]
        assert admin.get("/workspaces", search="sear")["items"] == [changed]

        response = admin.call("DELETE", f"/workspaces/{made['uuid']}")
        assert (response.status_code, response.content) == (204, b"")
        assert admin.get("/workspaces", search="sear")["total"] == 0
        assert admin.get("/workspaces", search="sear", is_archived="true")["total"] == 1
        for method, path, body in (
            ("DELETE", "", None),
            ("PATCH", "", {"name": "Back"}),
            ("POST", "/add-users", {"members": []}),
        ):
            admin.refused(404, method, f"/workspaces/{made['uuid']}{path}", body)

    def test_the_default_one_cannot_be_archived(self, organization: Organization, admin: AdminClient) -> None:
        admin.refused(409, "DELETE", f"/workspaces/{organization.workspace_id}")

    @pytest.mark.parametrize(
        ("change", "loc", "kind"),
        [
            ({"name": None}, ["body", "name"], "string_type"),
            ({"name": ""}, ["body", "name"], "string_too_short"),
            ({"name": "x" * 256}, ["body", "name"], "string_too_long"),
            ({"description": "x" * 256}, ["body", "description"], "string_too_long"),
            ({"icon": "abc"}, ["body", "icon"], "string_too_long"),
            ({"admin_user_id": "ann"}, ["body", "admin_user_id"], "uuid_parsing"),
            ({"admin_user_id": 1}, ["body", "admin_user_id"], "string_type"),
            ({"add_all_org_members": 1}, ["body", "add_all_org_members"], "bool_type"),
            ({"monthly_limit": 5}, ["body", "monthly_limit"], "extra_forbidden"),
        ],
    )
    def test_what_does_not_fit_is_named(
        self, admin: AdminClient, change: dict[str, Any], loc: list[Any], kind: str
    ) -> None:
        good = {"name": "Research", "admin_user_id": NOBODY}
        items = admin.refused(422, "POST", "/workspaces", {**good, **change})
        assert [(item["loc"], item["type"]) for item in items] == [(loc, kind)]

    def test_members(self, organization: Organization, admin: AdminClient) -> None:
        ann, bo, cy = (organization.user(f"{name}@example.org").id for name in ("ann", "bo", "cy"))
        path = f"/workspaces/{organization.workspace('Second', admin_user_id=ann).id}"

        def given(*members: tuple[str, dict[str, Any]]) -> dict[str, Any]:
            return {"members": [{"user_uuid": user, **roles} for user, roles in members]}

        added = admin.ok("POST", path + "/add-users", given((bo, {"roles": [WORK["dev"], WORK["billing"]]})))
        assert added == {"added_members_count": 1}
        admin.refused(409, "POST", path + "/add-users", given((cy, {}), (bo, {})))
        set_to = given((bo, {"role_names": ["user"]}), (cy, {}), (ann, {}))
        assert admin.ok("PATCH", path + "/users", set_to) == {
            "added_members_count": 1,
            "updated_members_count": 1,
        }
        in_second = admin.get(f"/users/{bo}")["workspaces"][1]
        assert in_second["raw_roles"] == [WORK["user"]]
        assert admin.ok("DELETE", path + "/remove-users", given((bo, {}))) == {
            "deleted_members_count": 1,
            "not_deleted_members": [],
        }
        assert admin.ok("DELETE", path + "/remove-users", given((bo, {}), (cy, {}))) == {
            "deleted_members_count": 1,
            "not_deleted_members": [bo],
        }
        for method, verb in (("POST", "/add-users"), ("PATCH", "/users")):
            admin.refused(404, method, path + verb, given((NOBODY, {})))
            (item,) = admin.refused(422, method, path + verb, given((cy, {}), (bo, {"role": "A"})))
            assert item["loc"] == ["body", "members", 1, "role"]
            (item,) = admin.refused(422, method, path + verb, given((cy, {}), (cy, {})))
            assert item["loc"] == ["body", "members", 1, "user_uuid"]
            admin.refused(422, method, path + verb, {})
        admin.refused(404, "DELETE", path + "/remove-users", given((NOBODY, {})))
        admin.refused(422, "DELETE", path + "/remove-users", given((cy, {"role": "A"})))

    def test_the_same_member_added_by_several_at_once_is_added_once(
        self, organization: Organization, admin: AdminClient
    ) -> None:
        ann = organization.user("ann@example.org").id
        path = f"/workspaces/{organization.workspace('Second').id}/add-users"
        with ThreadPoolExecutor(6) as threads:
            statuses = threads.map(
                lambda _: admin.send("POST", path, json={"members": [{"user_uuid": ann}]}).status_code,
                range(6),
            )
        assert sorted(statuses) == [200, *[409] * 5]
        assert len(organization.audit(event_types=["workspace.member.add"])) == 2


class TestApiKeys:
    def test_are_made_listed_and_deleted(self, organization: Organization, admin: AdminClient) -> None:
        ann = organization.user("ann@example.org").id
        workspace = organization.workspace_id
        made = admin.ok(
            "POST",
            "/api-keys",
            {"workspace_uuid": workspace, "user_id": ann, "name": "ci", "expiration": "2026-09-30"},
        )
        assert set(made) == KEY_KEYS
        secret = made["key"]
        assert secret.startswith("mz-")
        assert made == {
            "key_id": made["key_id"],
            "key": secret,
            "name": "ci",
            "hidden_key": f"mz-…{secret[-4:]}",
            "created_at": UTC_TEXT,
            "expiration_date": "2026-09-30",
            "actions": {"rotate": None, "delete": {"status": "available"}},
        }
        plain = admin.ok("POST", "/api-keys", {"workspace_uuid": workspace, "user_id": ann})
        assert (plain["name"], plain["expiration_date"]) == (None, None)
        with organization.database.write() as connection:
            connection.execute(
                sa.update(api_keys)
                .where(api_keys.c.id == made["key_id"])
                .values(last_used_at=NOW + timedelta(days=3))
            )
        listed = admin.get("/api-keys")
        assert set(listed) == {"keys"}
        assert secret not in str(listed)
        shown = next(key for key in listed["keys"] if key["key_id"] == made["key_id"])
        assert set(shown) == EXTENDED_KEYS
        assert shown == {
            **made,
            "key": None,
            "workspace_id": workspace,
            "workspace_name": "Default workspace",
            "created_by": ann,
            "product": "API",
            "last_used": "2026-09-04",
            "can_delete": True,
        }
        assert [key["key_id"] for key in admin.get("/api-keys", name=secret[-4:])["keys"]] == [made["key_id"]]
        assert [key["key_id"] for key in admin.get("/api-keys", name="CI")["keys"]] == [made["key_id"]]
        first, second = (admin.get("/api-keys", limit=1, offset=n)["keys"][0] for n in (0, 1))
        assert [first, second] == listed["keys"]
        assert set(admin.ok("DELETE", f"/api-keys/{made['key_id']}")) == {"detail"}
        admin.refused(404, "DELETE", f"/api-keys/{made['key_id']}")
        assert [key["key_id"] for key in admin.get("/api-keys")["keys"]] == [plain["key_id"]]

    def test_admin_keys_are_not_among_them(self, organization: Organization, admin: AdminClient) -> None:
        (own,) = organization.read(keys.list_keys, kind="admin")
        admin.refused(404, "DELETE", f"/api-keys/{own.id}")
        assert admin.get("/api-keys") == {"keys": []}

    @pytest.mark.parametrize(
        ("change", "loc"),
        [
            ({"name": "x" * 256}, ["body", "name"]),
            ({"name": "a\nb"}, ["body", "name"]),
            ({"expiration": "2026-08-31"}, ["body", "expiration"]),
            ({"expiration": "9999-12-31"}, ["body", "expiration"]),
            ({"expiration": "tomorrow"}, ["body", "expiration"]),
            ({"expiration": "2026-09-30T00:00:00Z"}, ["body", "expiration"]),
            ({"expiration": 1790000000}, ["body", "expiration"]),
            ({"expiration": "2026-02-30"}, ["body", "expiration"]),
            ({"workspace_uuid": "default"}, ["body", "workspace_uuid"]),
            ({"user_id": None}, ["body", "user_id"]),
            ({"monthly_limit": 1}, ["body", "monthly_limit"]),
        ],
    )
    def test_what_does_not_fit_is_named(
        self, organization: Organization, admin: AdminClient, change: dict[str, Any], loc: list[Any]
    ) -> None:
        ann = organization.user("ann@example.org").id
        good = {"workspace_uuid": organization.workspace_id, "user_id": ann}
        items = admin.refused(422, "POST", "/api-keys", {**good, **change})
        assert [item["loc"] for item in items] == [loc]
        assert admin.get("/api-keys")["keys"] == []


class TestLimits:
    def test_spending(self, organization: Organization, admin: AdminClient, server: AdminServer) -> None:
        with organization.database.write() as connection:
            connection.execute(
                sa.insert(spend).values(
                    scope="organization",
                    scope_id=organization.id,
                    month="2026-09",
                    amount=499_999_999_999,
                )
            )
        before = admin.get("/spend-limit")
        assert before == {
            "limits": {
                "completion": {
                    "no_monthly_limit": True,
                    "monthly_limit_reached": False,
                    "usage": 499.999999999,
                    "vibe_usage": 0.0,
                    "total_usage": 499.999999999,
                    "usage_limit": None,
                },
                "last_payment_failure": False,
                "last_payment_failure_protection": None,
                "currency": "USD",
            }
        }

        def after(body: dict[str, Any]) -> tuple[Any, ...]:
            answer = admin.ok("POST", "/spend-limit", body)
            assert answer == admin.get("/spend-limit")
            limit = answer["limits"]["completion"]
            return limit["no_monthly_limit"], limit["monthly_limit_reached"], limit["usage_limit"]

        assert after({"amount": 500}) == (False, False, 500)
        assert after({"amount": 499}) == (False, True, 499)
        assert after({"amount": 0}) == (False, True, 0)
        assert after({"amount": 500, "no_monthly_limit": True}) == (True, False, None)
        assert after({"amount": 9_223_372_036}) == (False, False, 9_223_372_036)
        server.now = NOW + timedelta(days=30)
        assert admin.get("/spend-limit")["limits"]["completion"]["usage"] == 0

    @pytest.mark.parametrize(
        ("body", "loc"),
        [
            ({}, ["body", "amount"]),
            ({"no_monthly_limit": True}, ["body", "amount"]),
            ({"amount": -1}, ["body", "amount"]),
            ({"amount": 1.5}, ["body", "amount"]),
            ({"amount": "5"}, ["body", "amount"]),
            ({"amount": True}, ["body", "amount"]),
            ({"amount": 9_223_372_037}, ["body", "amount"]),
            ({"amount": 5, "currency": "EUR"}, ["body", "currency"]),
        ],
    )
    def test_an_amount_is_in_whole_units(
        self, admin: AdminClient, body: dict[str, Any], loc: list[Any]
    ) -> None:
        items = admin.refused(422, "POST", "/spend-limit", body)
        assert [item["loc"] for item in items] == [loc]
        assert admin.get("/spend-limit")["limits"]["completion"]["no_monthly_limit"] is True

    def test_rates_are_those_of_the_default_workspace(
        self, organization: Organization, admin: AdminClient
    ) -> None:
        def rule(model_id: str, limit: RateLimits) -> None:
            organization.change(
                limits.set_rate_limits,
                workspace_id=organization.workspace_id,
                model_id=model_id,
                limits=limit,
            )

        # 90 a minute are one and a half a second: the server's default.
        assert admin.get("/rate-limit") == {
            "requests_per_second": 2,
            "tokens_limits_by_model": {MODEL_ID: {"tokens_per_minute": 1000, "tokens_per_month": None}},
        }
        rule(EVERY_MODEL, RateLimits(120, None, 5000))
        rule("another", RateLimits(1, 0, None))
        assert admin.get("/rate-limit") == {
            "requests_per_second": 2,
            "tokens_limits_by_model": {
                MODEL_ID: {"tokens_per_minute": None, "tokens_per_month": 5000},
                "another": {"tokens_per_minute": 0, "tokens_per_month": None},
            },
        }
        rule(EVERY_MODEL, RateLimits())
        assert admin.get("/rate-limit")["requests_per_second"] is None


class TestAuditLogs:
    def test_entries(self, organization: Organization, admin: AdminClient) -> None:
        ann = organization.user("ann@example.org").id
        admin.ok("PATCH", f"/users/{ann}", {"role": "A"})
        (own,) = organization.read(keys.list_keys, kind="admin")
        entries = admin.get("/audit-logs")
        assert [entry["event_type"] for entry in entries] == [
            "user.organization.role.update",
            "workspace.member.add",
            "user.create",
            "admin_api_key.created",
        ]
        assert entries[0] == {
            "created_at": entries[0]["created_at"],
            "actor_type": "API_KEY",
            "actor_metadata": {"uuid": own.id, "hidden_key": own.hidden},
            "event_type": "user.organization.role.update",
            "event_metadata": {"old_roles": "member", "new_roles": "organization_admin"},
            "target_type": "USER",
            "target_metadata": {"uuid": ann, "email": "ann@example.org"},
            "log_id": entries[0]["log_id"],
            "organization_uuid": organization.id,
            "workspace_uuid": None,
        }
        assert entries[1]["workspace_uuid"] == organization.workspace_id
        assert entries[1]["actor_type"] == "OTHER"

    def test_filters_and_pages(self, organization: Organization, admin: AdminClient) -> None:
        for number in range(30):
            organization.workspace(f"W{number}", now=NOW + timedelta(minutes=number))

        def names(query: str = "") -> list[str]:
            body = admin.ok(
                "GET", "/audit-logs", params=httpx.QueryParams("event_type=workspace.create&" + query)
            )
            return [entry["target_metadata"]["name"] for entry in body]

        newest_first = [f"W{number}" for number in reversed(range(30))]
        assert names() == newest_first[:20]
        assert names("limit=1000") == newest_first
        assert names("limit=2&sort=ascending") == ["W0", "W1"]
        assert names("after=2026-09-01T12:27:00Z") == ["W29", "W28"]
        assert names("before=2026-09-01T14:02:00%2B02:00") == ["W1", "W0"]
        assert names("actor_type=HUMAN&actor_type=OTHER&limit=1") == ["W29"]
        assert names("actor_type=HUMAN") == []
        assert names("event_type=admin_api_key.created&sort=ascending&limit=2")[1:] == ["W0"]
        assert names("target_type=USER") == []
        assert names(f"actor_user_uuid={NOBODY}") == []
        last = admin.get("/audit-logs", limit=10)[-1]["created_at"]
        assert [e["target_metadata"]["name"] for e in admin.get("/audit-logs", before=last, limit=1)] == [
            "W19"
        ]

    @pytest.mark.parametrize(
        ("query", "loc"),
        [
            ("actor_type=ROBOT", ["query", "actor_type", 0]),
            ("sort=up", ["query", "sort"]),
            ("limit=0", ["query", "limit"]),
            ("limit=1001", ["query", "limit"]),
            ("limit=1&limit=2", ["query", "limit"]),
            ("after=yesterday", ["query", "after"]),
            ("after=2026-09-01T12:00:00", ["query", "after"]),
            ("after=9999-12-31T23:59:59-12:00", ["query", "after"]),
            ("before=0001-01-01T00:00:00%2B12:00", ["query", "before"]),
            ("actor_user_uuid=ann", ["query", "actor_user_uuid"]),
            ("event_type=%00", ["query", "event_type", 0]),
            ("cursor=1", ["query", "cursor"]),
        ],
    )
    def test_what_does_not_fit_is_named(self, admin: AdminClient, query: str, loc: list[Any]) -> None:
        items = admin.refused(422, "GET", "/audit-logs", params=httpx.QueryParams(query))
        assert [item["loc"] for item in items] == [loc]


def test_every_refusal_of_accounts_has_an_answer() -> None:
    statuses = {
        NotThere("no"): 404,
        Conflict("no"): 409,
        NotAdmitted("no"): 403,
        TooManyAttempts(60): 429,
        TooBusy(): 503,
        Unacceptable("no", param="x"): 422,
    }
    assert {type(error) for error in statuses} == set(AccountsError.__subclasses__())
    for error, status in statuses.items():
        assert accounts_error(error).status == status


@pytest.mark.parametrize("path", ["/users", "/workspaces"])
@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=one", "page"),
        ("page=1000000001", "page"),
        ("page_size=0", "page_size"),
        ("page_size=101", "page_size"),
        ("per_page=5", "per_page"),
    ],
)
def test_pages_have_bounds(admin: AdminClient, path: str, query: str, name: str) -> None:
    items = admin.refused(422, "GET", path, params=httpx.QueryParams(query))
    assert [item["loc"] for item in items] == [["query", name]]
    assert admin.get(path, page=1_000_000_000, page_size=100)["page_size"] == 100


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/users", "email=%00"),
        ("/workspaces", "search=%00"),
        ("/workspaces", "is_archived=maybe"),
        ("/api-keys", "name=%00"),
        ("/api-keys", "limit=1001"),
        ("/api-keys", "offset=-1"),
        ("/api-keys", "offset=9223372036854775808"),
    ],
)
def test_other_queries_have_bounds(admin: AdminClient, path: str, query: str) -> None:
    (item,) = admin.refused(422, "GET", path, params=httpx.QueryParams(query))
    assert item["loc"] == ["query", query.partition("=")[0]]


def test_everything_of_another_organisation_is_404(
    organization: Organization, other: Organization, admin: AdminClient
) -> None:
    own, theirs = furnish(organization), furnish(other)
    before = other.audit()
    members = {"members": [{"user_uuid": own.user}]}
    their_members = {"members": [{"user_uuid": theirs.user}]}
    calls: list[Call] = [
        ("GET", f"/users/{theirs.user}", None),
        ("PATCH", f"/users/{theirs.user}", {"role_names": ["member"]}),
        ("DELETE", f"/users/{theirs.user}", None),
        ("DELETE", f"/users-invite/{theirs.invite}", None),
        ("POST", "/users-invite", {"email": "x@example.org", "workspace_uuids": [theirs.workspace]}),
        ("POST", "/workspaces", {"name": "W", "admin_user_id": theirs.user}),
        ("PATCH", f"/workspaces/{theirs.workspace}", {"name": "Mine"}),
        ("DELETE", f"/workspaces/{theirs.workspace}", None),
        ("POST", f"/workspaces/{theirs.workspace}/add-users", members),
        ("PATCH", f"/workspaces/{theirs.workspace}/users", members),
        ("DELETE", f"/workspaces/{theirs.workspace}/remove-users", members),
        ("POST", f"/workspaces/{own.workspace}/add-users", their_members),
        ("PATCH", f"/workspaces/{own.workspace}/users", their_members),
        ("DELETE", f"/workspaces/{own.workspace}/remove-users", their_members),
        ("POST", "/api-keys", {"workspace_uuid": theirs.workspace, "user_id": own.user}),
        ("POST", "/api-keys", {"workspace_uuid": own.workspace, "user_id": theirs.user}),
        ("DELETE", f"/api-keys/{theirs.key}", None),
    ]
    foreign = re.compile("|".join((theirs.user, theirs.workspace, theirs.invite, theirs.key)))
    for method, path, body in calls:
        detail = admin.refused(404, method, path, body)
        # The same words as for an id that nobody ever had.
        nobody_s = json.loads(foreign.sub(NOBODY, json.dumps([path, body])))
        assert admin.refused(404, method, *nobody_s) == foreign.sub(NOBODY, detail)
    assert other.audit() == before
    lists = str(
        [admin.get(path) for path in ("/users", "/users-invite", "/workspaces", "/api-keys", "/audit-logs")]
    )
    for known in (theirs.user, theirs.workspace, theirs.invite, theirs.key, other.id, other.workspace_id):
        assert known not in lists
    assert organization.read(workspaces.find_workspace, own.workspace).name == "Second"


@pytest.mark.parametrize("path", ["/users/{}", "/workspaces/{}", "/api-keys/{}", "/users-invite/{}"])
def test_ids_that_are_none_are_404(admin: AdminClient, path: str) -> None:
    for bad in ("%00", "x", "a" * 5000, "%27%3B%20DROP%20TABLE%20users%3B", "é"):
        response = admin.send("DELETE", path.format(bad))
        assert response.status_code == 404
        assert set(response.json()) == {"detail"}
        assert len(response.content) < 2000


def test_a_large_body_is_refused(admin: AdminClient) -> None:
    assert admin.send("POST", "/users", content=b" " * 3_000_000).status_code == 413


def test_the_lines_of_the_documentation_work(
    server: AdminServer, organization: Organization, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "admin.md").read_text("utf-8")
    settings, *blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    assert "ADMIN_API_KEY=" in settings
    things = furnish(organization)
    (tmp_path / ".curlrc").write_text('fail-with-body\nsilent\nshow-error\nwrite-out = "\\n"\n')
    environment = {
        "PATH": os.environ["PATH"],
        "CURL_HOME": str(tmp_path),
        "URL": server.url + "/v1/admin",
        "ADMIN_API_KEY": organization.admin_key()[1],
        "USER_ID": things.user,
        "WORKSPACE_ID": things.workspace,
        "KEY_ID": things.key,
        "INVITE_ID": things.invite,
    }
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(blocks)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("+ curl ") == "\n".join(blocks).count("curl ")
    assert {"user.create", "workspace.create", "api_key.delete", "workspace.delete"} <= set(
        organization.events()
    )


def test_a_database_that_fails_is_503(tmp_path: Path) -> None:
    database = Database(new_sqlite(tmp_path))
    set_up(database)
    running = AdminServer(database)
    running.start()
    try:
        admin = AdminClient(running, make_organization(database).admin_key()[1])
        admin.get("/users")
        for table in ("users", "api_keys"):
            with database.write() as connection:
                connection.execute(sa.text(f"ALTER TABLE {table} RENAME TO gone_{table}"))
            running.access.forget()
            for method, path, body in (
                ("GET", "/users", None),
                ("POST", "/users-invite", {"email": "a@b.co"}),
            ):
                response = admin.call(method, path, body)
                assert response.status_code == 503
                assert response.json()["message"] == "Service unavailable."
                assert "retry-after" in response.headers
    finally:
        running.stop()
        database.dispose()
