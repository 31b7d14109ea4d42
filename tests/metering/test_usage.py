"""Sums over usage records: exact, scoped, and alike in both databases."""

from __future__ import annotations

from datetime import date
from typing import Any, get_args

import sqlalchemy as sa

from mezzo.metering.periods import UTC_ZONE, Month, Period, find_zone
from mezzo.metering.records import Status
from mezzo.metering.usage import UsageSum, sum_usage, total_usage
from mezzo.store.database import Database
from mezzo.store.tables import usage_records
from tests.metering.entries import ACCESS, opening, settlement
from tests.metering.rows import add_records, new_id, record

SEPTEMBER = Period.of_month(Month.parse("2026-09"), UTC_ZONE)


def sums(
    database: Database, organization_id: str, period: Period = SEPTEMBER, **asked: Any
) -> list[UsageSum]:
    with database.read() as connection:
        return list(sum_usage(connection, organization_id, period, **asked))


def total(database: Database, organization_id: str, period: Period = SEPTEMBER) -> UsageSum:
    with database.read() as connection:
        return total_usage(connection, organization_id, period)


def test_kinds_of_tokens_and_what_they_cost(books: Database, organization: str) -> None:
    add_records(
        books,
        [
            record(organization, "w", "2026-09-01 00:00:00+00:00", image_tokens=64),
            record(organization, "w", "2026-09-02 00:00:00+00:00", accepted_prediction_tokens=7),
            record(organization, "w", "2026-09-03 00:00:00+00:00", rejected_prediction_tokens=2),
        ],
    )
    found = total(books, organization)
    assert (found.input_tokens, found.cached_input_tokens, found.output_tokens) == (2700, 300, 150)
    assert (found.image_tokens, found.accepted_prediction_tokens, found.rejected_prediction_tokens) == (
        64,
        7,
        2,
    )
    # nano-dollars a token: 0.40 dollars per million are 400, 0.04 are 40, 2.00 are 2,000
    assert (found.input_amount, found.cached_input_amount, found.output_amount) == (
        2700 * 400,
        300 * 40,
        150 * 2000,
    )
    assert found.amount == 1_080_000 + 12_000 + 300_000
    assert found.num_requests == found.num_finished == 3


def test_nothing_adds_up_to_one_sum_of_zeros_and_to_no_groups(books: Database, organization: str) -> None:
    found = total(books, organization)
    assert (found.num_requests, found.input_tokens, found.amount) == (0, 0, 0)
    assert sums(books, organization, by=("day", "model")) == []


def test_a_period_begins_with_its_first_moment_and_ends_before_its_last(
    books: Database, organization: str
) -> None:
    add_records(
        books,
        [
            record(organization, "before", "2026-08-31 23:59:59.999999+00:00"),
            record(organization, "first", "2026-09-01 00:00:00+00:00"),
            record(organization, "last", "2026-09-30 23:59:59.999999+00:00"),
            record(organization, "after", "2026-10-01 00:00:00+00:00"),
        ],
    )
    assert [row.workspace_id for row in sums(books, organization, by=("workspace",))] == ["first", "last"]
    by_day = sums(books, organization, by=("workspace", "day"))
    assert [(row.day, row.workspace_id) for row in by_day] == [
        (date(2026, 9, 1), "first"),
        (date(2026, 9, 30), "last"),
    ]


def test_only_what_was_billed_counts_as_tokens(books: Database) -> None:
    """The database and `Settlement.amounts` agree on what that is, for every end that a request can have."""
    ends = [
        settlement(opening(), status=status, completion_tokens=completion_tokens)
        for status in get_args(Status)
        for completion_tokens in (0, 5)
    ]
    with books.write() as connection:
        connection.execute(sa.insert(usage_records), [end.row() for end in ends])
    found = total(books, ACCESS.organization_id)
    billed = [end for end in ends if end.amounts.total]
    assert len(billed) == 3
    assert found.input_tokens == sum(end.usage.prompt_tokens - end.usage.cached_tokens for end in billed)
    assert found.cached_input_tokens == sum(end.usage.cached_tokens for end in billed)
    assert found.output_tokens == sum(end.usage.completion_tokens for end in billed)
    assert found.amount == sum(end.amounts.total for end in ends)
    assert found.unbilled_amount == 0
    assert (found.num_finished, found.num_aborted, found.num_failed, found.num_interrupted) == (2, 2, 2, 2)


def test_what_failed_and_has_an_amount_stands_out(books: Database, organization: str) -> None:
    add_records(
        books, [record(organization, "w", "2026-09-01 00:00:00+00:00", status="failed", output_amount=5)]
    )
    assert total(books, organization).unbilled_amount == 5


def test_another_organisation_s_records_and_another_workspace_s_and_key_s(
    books: Database, organization: str
) -> None:
    at = "2026-09-01 00:00:00+00:00"
    add_records(
        books,
        [
            record(organization, "a", at, api_key_id="1"),
            record(organization, "a", at, api_key_id="2"),
            record(organization, "b", at, api_key_id="1"),
            record(new_id("organization"), "a", at, api_key_id="1"),
        ],
    )
    assert total(books, organization).num_requests == 3
    assert sums(books, organization, workspace_id="a")[0].num_requests == 2
    assert sums(books, organization, workspace_id="a", api_key_id="1")[0].num_requests == 1
    assert sums(books, organization, workspace_id="c")[0].num_requests == 0


def test_a_day_is_the_zone_s(books: Database, organization: str) -> None:
    add_records(
        books,
        [
            record(
                organization, "w", "2026-10-24 22:30:00+00:00"
            ),  # 00:30 in Paris, on the 25th, in summer time
            record(
                organization, "w", "2026-10-25 22:30:00+00:00"
            ),  # 23:30 in Paris, on the same day, in winter time
            record(organization, "w", "2026-10-25 23:30:00+00:00"),  # 00:30 in Paris, on the 26th
        ],
    )
    for zone, days in {"UTC": {24: 1, 25: 2}, "Europe/Paris": {25: 2, 26: 1}}.items():
        october = Period.of_month(Month.parse("2026-10"), find_zone(zone))
        rows = sums(books, organization, october, by=("day",))
        assert {row.day.day: row.num_requests for row in rows if row.day} == days


def test_a_period_of_years_by_day(books: Database, organization: str) -> None:
    days = [date(2023, 1, 1), date(2024, 2, 29), date(2026, 12, 31)]
    add_records(books, [record(organization, "w", f"{day} 12:00:00+00:00") for day in days])
    period = Period.of_days(date(2023, 1, 1), date(2027, 1, 1), UTC_ZONE)
    assert [row.day for row in sums(books, organization, period, by=("day",))] == days


def test_ids_come_in_the_order_of_their_bytes_in_both_databases(books: Database, organization: str) -> None:
    ids = ["Z", "_", "a", "é", "ö-1", "ö1"]
    add_records(
        books,
        [record(organization, workspace, "2026-09-01 00:00:00+00:00") for workspace in reversed(ids)],
    )
    found = [row.workspace_id for row in sums(books, organization, by=("workspace", "model"))]
    assert found == sorted(ids, key=str.encode)


def test_sums_beyond_the_precision_of_a_float_are_exact(books: Database, organization: str) -> None:
    amounts = (2**62, 2**61 + 1, 2**60 + 3)
    add_records(
        books,
        [
            record(
                organization,
                "w",
                "2026-09-01 00:00:00+00:00",
                output_amount=amount - 364_000,
                input_amount=364_000,
                cached_input_amount=0,
            )
            for amount in amounts
        ],
    )
    assert total(books, organization).amount == sum(amounts)
