"""Limits of rate and of money: what is shown, and what may be set."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from mezzo.accounts import limits
from mezzo.accounts.access import EVERY_MODEL, RateLimits
from mezzo.store.tables import spend
from tests.accounts.world import NOW, Organization
from tests.server.admin.admin_server import MODEL_ID, AdminClient, AdminServer


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
