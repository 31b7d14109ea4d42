"""API keys, by an admin: every success, key by key, and every refusal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from mezzo.accounts import keys
from mezzo.store.tables import api_keys
from tests.accounts.world import NOW, Organization
from tests.server.admin.admin_server import AdminClient
from tests.server.admin.calls import (
    EXTENDED_KEYS,
    KEY_KEYS,
    UTC_TEXT,
)


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
