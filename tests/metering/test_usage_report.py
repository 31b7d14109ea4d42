"""The month's usage in the shape of the reference's admin API."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from mezzo.accounts.errors import NotThere
from mezzo.metering.periods import Month
from mezzo.metering.usage_report import usage_report
from mezzo.store.database import Database
from mezzo.store.tables import prices
from tests.metering.rows import MODEL, add_organization, add_records, new_id, record

SEPTEMBER = Month.parse("2026-09")
NOW = datetime(2026, 9, 20, tzinfo=UTC)

EMPTY: dict[str, Any] = {"models": {}}


def report(database: Database, organization: str, month: Month = SEPTEMBER, **asked: Any) -> dict[str, Any]:
    with database.read() as connection:
        given = {"now": NOW} | asked
        return json.loads(usage_report(connection, organization, month, **given).to_json())


def test_has_every_key_of_the_contract(books: Database, organization: str) -> None:
    body = report(books, organization)
    listed = body.pop("prices")
    assert listed
    assert body == {
        **dict.fromkeys(("completion", "ocr", "connectors", "audio", "audio_characters", "chat"), EMPTY),
        "libraries_api": {"pages": EMPTY, "tokens": EMPTY, "audio_seconds": EMPTY},
        "fine_tuning": {"training": {}, "storage": {}},
        "vibe_usage": 0,
        "vibe_code": dict.fromkeys(("completion", "ocr", "connectors", "audio", "audio_characters"), EMPTY),
        "date": "2026-09-01T00:00:00Z",
        "start_date": "2026-09-01T00:00:00Z",
        "end_date": "2026-09-30T23:59:59.999Z",
        "previous_month": "2026-08",
        "next_month": None,
        "currency": "USD",
        "currency_symbol": "$",
    }


def test_one_object_for_each_model_group_day_and_tier(books: Database, organization: str) -> None:
    add_records(
        books,
        [
            record(organization, "a", "2026-09-01 00:00:00+00:00"),
            record(organization, "b", "2026-09-01 23:59:59.999999+00:00"),
            record(organization, "a", "2026-09-01 12:00:00+00:00", service_tier="batch", cached_tokens=0),
            record(organization, "a", "2026-09-02 00:00:00+00:00", cached_tokens=1000),
            record(organization, "a", "2026-09-03 00:00:00+00:00", status="failed"),
            record(organization, "a", "2026-10-01 00:00:00+00:00"),
        ],
    )

    def used(day: int, group: str, value: int, tier: str = "standard") -> dict[str, object]:
        return {
            "timestamp": f"2026-09-{day:02}",
            "value": value,
            "billing_metric": MODEL,
            "billing_group": group,
            "event_type": "api_tokens",
            "service_tier": tier,
            "api_zone": "global",
        }

    body = report(books, organization)
    assert body["completion"]["models"] == {
        MODEL: {
            "input": [used(1, "input", 1000, "batch"), used(1, "input", 1800)],
            "cached_input": [used(1, "cached_input", 200), used(2, "cached_input", 1000)],
            "output": [used(1, "output", 50, "batch"), used(1, "output", 100), used(2, "output", 50)],
        }
    }
    assert body["chat"] == EMPTY


def test_prices_are_those_of_a_token_and_in_force_in_the_month(books: Database, organization: str) -> None:
    model = f"model-{organization}"
    dates = {"old": "2025-01-01", "before": "2026-08-15", "within": "2026-09-10", "after": "2026-10-01"}
    with books.write() as connection:
        connection.execute(
            sa.insert(prices),
            [
                {
                    "id": f"{model}/{name}",
                    "model_id": model,
                    "currency": "USD",
                    "service_tier": "standard",
                    "valid_from": datetime.fromisoformat(f"{day}T00:00:00+00:00"),
                    "input_per_million": f"{number}.25",
                    "cached_input_per_million": "0.0001",
                    "output_per_million": "2000000",
                }
                for number, (name, day) in enumerate(dates.items())
            ],
        )
    listed = [price for price in report(books, organization)["prices"] if price["billing_metric"] == model]
    assert [price["price"] for price in listed if price["billing_group"] == "input"] == [
        "0.00000125",
        "0.00000225",
    ]
    assert listed[:3] == [
        {
            "event_type": "api_tokens",
            "billing_metric": model,
            "billing_group": group,
            "api_zone": "global",
            "service_tier": "standard",
            "price": price,
        }
        for group, price in (("input", "0.00000125"), ("cached_input", "0.0000000001"), ("output", "2"))
    ]


def test_values_times_prices_are_what_was_billed(books: Database, organization: str) -> None:
    add_records(books, [record(organization, "a", "2026-09-01 00:00:00+00:00")])
    body = report(books, organization)
    price = {
        (row["billing_metric"], row["billing_group"], row["service_tier"]): float(row["price"])
        for row in body["prices"]
    }
    cost = sum(
        used["value"] * price[model, group, used["service_tier"]]
        for model, groups in body["completion"]["models"].items()
        for group, row in groups.items()
        for used in row
    )
    assert cost == pytest.approx(900 * 0.40e-6 + 100 * 0.04e-6 + 50 * 2e-6)


@pytest.mark.parametrize("zone", ["us", "eu"])
def test_other_zones_are_empty(books: Database, organization: str, zone: str) -> None:
    add_records(books, [record(organization, "a", "2026-09-01 00:00:00+00:00")])
    body = report(books, organization, zone=zone)
    assert (body["completion"], body["prices"]) == (EMPTY, [])


def test_one_workspace_alone_also_an_archived_one(books: Database, organization: str) -> None:
    mine, other = new_id("workspace"), new_id("workspace")
    add_organization(books, mine, organization_id=organization)
    add_organization(books, other)
    add_records(
        books, [record(organization, workspace, "2026-09-01 00:00:00+00:00") for workspace in (mine, "gone")]
    )
    (row,) = report(books, organization, workspace_id=mine)["completion"]["models"][MODEL]["input"]
    assert row["value"] == 900
    for nothing in (other, "nowhere", "a\0b"):
        with pytest.raises(NotThere):
            report(books, organization, workspace_id=nothing)


@pytest.mark.parametrize(
    ("month", "previous", "following"),
    [("2026-01", "2025-12", "2026-02"), ("2026-12", "2026-11", None), ("2025-12", "2025-11", "2026-01")],
)
def test_the_months_around_it(
    books: Database, organization: str, month: str, previous: str, following: str | None
) -> None:
    body = report(books, organization, Month.parse(month))
    assert (body["previous_month"], body["next_month"]) == (previous, following)
