"""The audit log: what it holds, and how it is searched."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from mezzo.accounts import keys
from tests.accounts.world import NOW, Organization
from tests.server.admin.admin_server import AdminClient
from tests.server.admin.calls import (
    NOBODY,
)


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
