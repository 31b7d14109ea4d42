"""Workspaces and limits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from mezzo.accounts import keys, limits, workspaces
from mezzo.accounts.access import EVERY_MODEL, AccessCache, RateLimits, SpendLimit
from mezzo.accounts.errors import Conflict, NotThere, Unacceptable
from mezzo.accounts.users import remove_user
from mezzo.store.tables import spend
from tests.accounts.world import NOW, Organization

MODEL = "mistral-medium-2505"


def access_of(organization: Organization, secret: str):
    async def find():
        return await AccessCache(organization.database, lambda: NOW).find(secret)

    return asyncio.run(find())


class TestMaking:
    def test_with_an_administrator_and_everybody(self, organization: Organization) -> None:
        ann = organization.user("ann@example.org")
        organization.user("bo@example.org")
        left = organization.user("cy@example.org")
        organization.change(remove_user, user_id=left.id)
        made = organization.workspace(
            "Research", description="Papers", icon="🧪", admin_user_id=ann.id, add_all_members=True
        )
        assert (made.name, made.description, made.icon) == ("Research", "Papers", "🧪")
        assert (made.num_members, made.is_default, made.has_priority) == (2, False, False)
        assert organization.read(workspaces.find_workspace, made.id) == made

    def test_alone(self, organization: Organization) -> None:
        assert organization.workspace("Empty").num_members == 0

    def test_another_organisation_s_administrator_is_not_there(
        self, organization: Organization, other: Organization
    ) -> None:
        with pytest.raises(NotThere):
            organization.workspace("Research", admin_user_id=other.user("ann@example.org").id)
        assert organization.read(workspaces.count_workspaces) == 1

    @pytest.mark.parametrize(
        ("field", "value"), [("name", ""), ("name", "x" * 256), ("description", "a\0"), ("icon", "abc")]
    )
    def test_what_cannot_be_kept_is_refused_by_name(
        self, organization: Organization, field: str, value: str
    ) -> None:
        with pytest.raises(Unacceptable) as refused:
            organization.workspace(**{"name": "Research", field: value})
        assert refused.value.param == field


class TestChanging:
    def test_what_is_left_out_stays_and_an_empty_text_empties(self, organization: Organization) -> None:
        made = organization.workspace("Research", description="Papers", icon="R")
        changed = organization.change(workspaces.update_workspace, workspace_id=made.id, name="Lab")
        assert (changed.name, changed.description, changed.icon) == ("Lab", "Papers", "R")
        changed = organization.change(
            workspaces.update_workspace, workspace_id=made.id, description="", icon=""
        )
        assert (changed.name, changed.description, changed.icon) == ("Lab", None, None)
        organization.change(workspaces.update_workspace, workspace_id=made.id, name="Lab", icon="")
        first, second = organization.audit(event_types=["workspace.update"])
        assert first.event_metadata == {"old_name": "Research", "new_name": "Lab"}
        assert second.event_metadata == {
            "old_description": "Papers",
            "new_description": "",
            "old_icon": "R",
            "new_icon": "",
        }

    def test_priority_reaches_keys(self, organization: Organization) -> None:
        _, secret = organization.key()
        assert not access_of(organization, secret).has_priority
        for has_priority in (True, True):
            organization.change(
                workspaces.set_priority, workspace_id=organization.workspace_id, has_priority=has_priority
            )
        assert access_of(organization, secret).has_priority
        (entry,) = organization.audit(event_types=["workspace.update"])
        assert entry.event_metadata == {"has_priority": "true"}


class TestArchiving:
    def test_ends_its_keys(self, organization: Organization) -> None:
        made = organization.workspace("Research")
        key, secret = organization.key(workspace_id=made.id)
        organization.change(workspaces.archive_workspace, workspace_id=made.id)
        assert access_of(organization, secret) is None
        assert organization.read(keys.find_key, key.id).revoked_at == NOW
        assert organization.events()[-2:] == ["api_key.delete", "workspace.delete"]
        with pytest.raises(NotThere):
            organization.key(workspace_id=made.id)
        for work in (workspaces.archive_workspace, workspaces.update_workspace):
            with pytest.raises(NotThere):
                organization.change(work, workspace_id=made.id)

    def test_the_default_one_stays(self, organization: Organization) -> None:
        with pytest.raises(Conflict):
            organization.change(workspaces.archive_workspace, workspace_id=organization.workspace_id)

    def test_archived_ones_are_listed_when_asked_for(self, organization: Organization) -> None:
        made = organization.workspace("Research", now=NOW + timedelta(seconds=1))
        organization.change(workspaces.archive_workspace, workspace_id=made.id)

        def names(**query: object) -> list[str]:
            return [w.name for w in organization.read(workspaces.list_workspaces, **query)]

        assert names() == ["Default workspace"]
        assert names(include_archived=True) == ["Default workspace", "Research"]
        assert names(include_archived=True, name="SEARCH") == ["Research"]
        assert names(include_archived=True, name="100%") == []
        assert names(include_archived=True, limit=1, offset=1) == ["Research"]
        assert organization.read(workspaces.count_workspaces, include_archived=True) == 2


def test_another_organisation_s_workspace_is_not_there(
    organization: Organization, other: Organization
) -> None:
    for work, given in (
        (workspaces.update_workspace, {"name": "Mine"}),
        (workspaces.archive_workspace, {}),
        (workspaces.set_priority, {"has_priority": True}),
        (limits.set_workspace_limit, {"monthly_limit": 1}),
        (limits.set_rate_limits, {"model_id": MODEL, "limits": RateLimits(1)}),
    ):
        with pytest.raises(NotThere):
            organization.change(work, workspace_id=other.workspace_id, **given)
    for find in (workspaces.find_workspace, limits.list_rate_limits):
        with pytest.raises(NotThere):
            organization.read(find, other.workspace_id)
    assert [w.name for w in organization.read(workspaces.list_workspaces)] == ["Default workspace"]


class TestSpendingLimits:
    def test_reach_keys(self, organization: Organization) -> None:
        _, secret = organization.key(monthly_limit=1)
        organization.change(limits.set_organization_limit, monthly_limit=3_000_000_000)
        organization.change(
            limits.set_workspace_limit, workspace_id=organization.workspace_id, monthly_limit=2_500_000_000
        )
        assert [limit.limit for limit in access_of(organization, secret).spend_limits] == [
            3_000_000_000,
            2_500_000_000,
            1,
        ]
        organization.change(
            limits.set_workspace_limit, workspace_id=organization.workspace_id, monthly_limit=None
        )
        organization.change(limits.set_organization_limit, monthly_limit=None)
        (left,) = access_of(organization, secret).spend_limits
        assert left == SpendLimit("api_key", left.scope_id, 1)
        entries = organization.audit(
            event_types=["billing.monthly_limit.updated", "billing.workspace_monthly_limit.updated"]
        )
        assert [(e.target_type, e.event_metadata) for e in entries] == [
            ("MONTHLY_LIMIT", {"old": "none", "new": "3.00"}),
            ("WORKSPACE_MONTHLY_LIMIT", {"old": "none", "new": "2.50"}),
            ("WORKSPACE_MONTHLY_LIMIT", {"old": "2.50", "new": "none"}),
            ("MONTHLY_LIMIT", {"old": "3.00", "new": "none"}),
        ]

    def test_a_workspace_s_is_not_above_the_organisation_s(self, organization: Organization) -> None:
        organization.change(limits.set_organization_limit, monthly_limit=10)
        for limit, is_good in ((11, False), (10, True)):
            if is_good:
                organization.change(
                    limits.set_workspace_limit,
                    workspace_id=organization.workspace_id,
                    monthly_limit=limit,
                )
            else:
                with pytest.raises(Conflict):
                    organization.change(
                        limits.set_workspace_limit,
                        workspace_id=organization.workspace_id,
                        monthly_limit=limit,
                    )
        workspace = organization.read(workspaces.find_workspace, organization.workspace_id)
        assert workspace.monthly_limit == 10

    def test_are_not_negative(self, organization: Organization) -> None:
        with pytest.raises(Unacceptable):
            organization.change(limits.set_organization_limit, monthly_limit=-1)
        with pytest.raises(Unacceptable):
            organization.change(
                limits.set_workspace_limit, workspace_id=organization.workspace_id, monthly_limit=-1
            )

    def test_what_was_spent_is_that_of_the_month_in_utc(self, organization: Organization) -> None:
        with organization.database.write() as connection:
            for month, amount in (("2026-08", 5), ("2026-09", 7)):
                connection.execute(
                    sa.insert(spend).values(
                        scope="organization", scope_id=organization.id, month=month, amount=amount
                    )
                )
        moments = (
            (datetime(2026, 8, 31, 23, 59, tzinfo=UTC), 5),
            (datetime.fromisoformat("2026-09-01T01:00:00+02:00"), 5),
            (NOW, 7),
            (NOW + timedelta(days=60), 0),
        )
        with organization.database.read() as connection:
            for now, amount in moments:
                assert limits.find_spend(connection, "organization", organization.id, now) == amount


class TestRateLimits:
    def set(self, organization: Organization, model_id: str, rule: RateLimits | None) -> None:
        organization.change(
            limits.set_rate_limits,
            workspace_id=organization.workspace_id,
            model_id=model_id,
            limits=rule,
        )

    def test_reach_keys(self, organization: Organization) -> None:
        _, secret = organization.key()
        self.set(organization, EVERY_MODEL, RateLimits(60, None, 10**12))
        self.set(organization, MODEL, RateLimits(0))
        access = access_of(organization, secret)
        assert access.rate_limits_of(MODEL, RateLimits()) == RateLimits(0)
        assert access.rate_limits_of("another", RateLimits()) == RateLimits(60, None, 10**12)
        self.set(organization, MODEL, RateLimits(1, 2, 3))
        self.set(organization, MODEL, RateLimits(1, 2, 3))
        self.set(organization, EVERY_MODEL, None)
        self.set(organization, EVERY_MODEL, None)
        access = access_of(organization, secret)
        assert dict(access.rate_limits) == {MODEL: RateLimits(1, 2, 3)}
        assert [
            (e.event_type, e.target_metadata["model"], e.event_metadata)
            for e in organization.audit(target_types=["RATE_LIMIT_RULE"])
        ] == [
            (
                "rate_limit.rule.create",
                "*",
                {"new_requests_per_minute": "60", "new_tokens_per_month": "1000000000000"},
            ),
            ("rate_limit.rule.create", MODEL, {"new_requests_per_minute": "0"}),
            (
                "rate_limit.rule.update",
                MODEL,
                {
                    "old_requests_per_minute": "0",
                    "new_requests_per_minute": "1",
                    "new_tokens_per_minute": "2",
                    "new_tokens_per_month": "3",
                },
            ),
            (
                "rate_limit.rule.delete",
                "*",
                {"old_requests_per_minute": "60", "old_tokens_per_month": "1000000000000"},
            ),
        ]

    @pytest.mark.parametrize(
        ("rule", "param"),
        [
            (RateLimits(-1), "requests_per_minute"),
            (RateLimits(2**31), "requests_per_minute"),
            (RateLimits(None, 2**63), "tokens_per_minute"),
            (RateLimits(None, None, -1), "tokens_per_month"),
        ],
    )
    def test_what_no_database_holds_is_refused_by_name(
        self, organization: Organization, rule: RateLimits, param: str
    ) -> None:
        with pytest.raises(Unacceptable) as refused:
            self.set(organization, MODEL, rule)
        assert refused.value.param == param
