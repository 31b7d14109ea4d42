"""Workspaces and their members: every success, key by key, and every refusal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from mezzo.accounts import limits
from tests.accounts.world import NOW, Organization
from tests.server.admin.admin_server import AdminClient, AdminServer
from tests.server.admin.calls import (
    NOBODY,
    WORK,
    WORKSPACE_KEYS,
)


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
