"""Random usage records, random order, random splits, random time zones: the sums agree to the nano-unit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mezzo.metering.invoices.data import to_json
from mezzo.metering.invoices.invoice import Invoice, make_invoice
from mezzo.metering.periods import Month, Period, find_zone
from mezzo.metering.usage import DIMENSIONS, Dimension, UsageSum, sum_usage, total_usage
from mezzo.store.database import Database
from tests.databases import PostgresServer, new_sqlite
from tests.metering.rows import add_records, new_id, price_id, record, set_up

YEAR = 2026
LATER = datetime(2028, 1, 1, tzinfo=UTC)
# Far from UTC to both sides, with half hours, and with clocks that change.
ZONES = (
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "Asia/Kolkata",
    "Pacific/Kiritimati",
    "Australia/Lord_Howe",
)
AMOUNTS = ("input_amount", "cached_input_amount", "output_amount")
COUNTS = [field.name for field in fields(UsageSum) if field.name.endswith(("_tokens", "_amount"))]

# The year and a little more to both sides; moments about when months begin and clocks change come up often.
edges = st.builds(
    lambda edge, offset: edge + offset,
    st.sampled_from(
        [
            datetime(2026, 1, 1, tzinfo=UTC),
            datetime(2026, 3, 8, 7, tzinfo=UTC),
            datetime(2026, 3, 29, 1, tzinfo=UTC),
            datetime(2026, 10, 25, 1, tzinfo=UTC),
            datetime(2026, 11, 1, 6, tzinfo=UTC),
            datetime(2027, 1, 1, tzinfo=UTC),
        ]
    ),
    st.timedeltas(timedelta(hours=-15), timedelta(hours=15)),
)
moments = edges | st.datetimes(datetime(2025, 12, 1), datetime(2027, 2, 1), timezones=st.just(UTC))
tokens = st.integers(0, 2**31 - 1)


@st.composite
def usage_records(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the values of a record; what its tokens cost has nothing to do with how many they are."""
    prompt = draw(tokens)
    values: dict[str, Any] = {
        "workspace_id": draw(st.sampled_from("abc")),
        "api_key_id": draw(st.sampled_from("xyz")),
        "model_id": draw(st.sampled_from(["mistral-medium-2505", "mistral-medium-3-5"])),
        "service_tier": (tier := draw(st.sampled_from(["standard", "priority", "batch"]))),
        "price_id": price_id(tier),
        "status": draw(st.sampled_from(["finished", "finished", "aborted", "failed", "interrupted"])),
        "created_at": draw(moments),
        "prompt_tokens": prompt,
        "cached_tokens": draw(st.integers(0, prompt)),
        "completion_tokens": draw(tokens),
    }
    is_billed = values["status"] == "finished" or (
        values["status"] == "aborted" and values["completion_tokens"]
    )
    amounts = st.integers(0, 2**56) if is_billed else st.just(0)
    return values | {name: draw(amounts) for name in AMOUNTS}


def enter(database: Database, drawn: Sequence[dict[str, Any]]) -> str:
    """Write the records of a new organisation; return its id."""
    organization = new_id("organization")
    rows = [
        record(organization, values["workspace_id"], values["created_at"], **_others(values))
        for values in drawn
    ]
    add_records(database, rows)
    return organization


def _others(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in {"workspace_id", "created_at"}}


def cost(drawn: Sequence[dict[str, Any]]) -> int:
    return sum(values[name] for values in drawn for name in AMOUNTS)


def of_month(drawn: Sequence[dict[str, Any]], month: Month, zone: ZoneInfo) -> list[dict[str, Any]]:
    return [values for values in drawn if Month.at(values["created_at"], zone) == month]


def invoice_of(database: Database, organization: str, month: Month, zone: ZoneInfo) -> Invoice:
    with database.read() as connection:
        return make_invoice(connection, organization, month, zone=zone, now=LATER)


def check_months(database: Database, drawn: list[dict[str, Any]], name: str) -> None:
    """Check that each month's invoice is the sum of its records, and the months' sum that of the year."""
    organization, zone = enter(database, drawn), find_zone(name)
    total = 0
    for number in range(1, 13):
        month = Month(YEAR, number)
        invoice = invoice_of(database, organization, month, zone)
        assert invoice.amount == cost(of_month(drawn, month, zone))
        total += invoice.amount
    year = Period(
        Period.of_month(Month(YEAR, 1), zone).start, Period.of_month(Month(YEAR, 12), zone).end, zone
    )
    with database.read() as connection:
        assert total_usage(connection, organization, year).amount == total


def check_partitions(
    database: Database, drawn: list[dict[str, Any]], name: str, by: Sequence[Dimension]
) -> None:
    """Check that whatever records are grouped by, the groups add up to the same, and days are the zone's."""
    organization, zone = enter(database, drawn), find_zone(name)
    month = Month.at(drawn[0]["created_at"], zone)
    period, within = Period.of_month(month, zone), of_month(drawn, month, zone)
    with database.read() as connection:
        total = total_usage(connection, organization, period)
        assert (total.num_requests, total.amount) == (len(within), cost(within))
        groups = list(sum_usage(connection, organization, period, by=by))
        for field in (*COUNTS, "num_requests", "amount"):
            assert sum(getattr(group, field) for group in groups) == getattr(total, field)
        if "day" in by:
            days = Counter(values["created_at"].astimezone(zone).date() for values in within)
            for day, count in days.items():
                assert sum(group.num_requests for group in groups if group.day == day) == count


def check_order(database: Database, drawn: list[dict[str, Any]], shuffled: list[dict[str, Any]]) -> None:
    """Check that the order in which records were written cannot be told from an invoice."""
    zone, month = find_zone("UTC"), Month.at(drawn[0]["created_at"], find_zone("UTC"))
    documents = []
    for rows in (drawn, shuffled):
        organization = enter(database, rows)
        document = json.loads(to_json(invoice_of(database, organization, month, zone)))
        documents.append(document | {"organization_id": "", "number": ""})
    assert documents[0] == documents[1]


def check_split(database: Database, drawn: list[dict[str, Any]], workspaces: str) -> None:
    """Check that the total does not depend on whose requests they were."""
    moved = [values | {"workspace_id": one} for values, one in zip(drawn, workspaces, strict=True)]
    zone, month = find_zone("UTC"), Month.at(drawn[0]["created_at"], find_zone("UTC"))
    amounts = {invoice_of(database, enter(database, rows), month, zone).amount for rows in (drawn, moved)}
    assert amounts == {cost(of_month(drawn, month, zone))}


@pytest.fixture(scope="module")
def sqlite_books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(new_sqlite(tmp_path_factory.mktemp("books")))
    set_up(database)
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def postgres_books(postgres: PostgresServer) -> Iterator[Database]:
    database = Database(postgres.make())
    set_up(database)
    yield database
    database.dispose()


many = st.lists(usage_records(), min_size=1, max_size=20)
groupings = st.lists(st.sampled_from(DIMENSIONS), min_size=1, max_size=len(DIMENSIONS), unique=True)
zones = st.sampled_from(ZONES)
with_shuffled = many.flatmap(lambda drawn: st.tuples(st.just(drawn), st.permutations(drawn)))
with_workspaces = many.flatmap(
    lambda drawn: st.tuples(st.just(drawn), st.text("abcdef", min_size=len(drawn), max_size=len(drawn)))
)


class TestSqlite:
    @settings(max_examples=15)
    @given(many, zones)
    def test_an_invoice_is_the_sum_of_its_month_and_twelve_are_the_year(
        self, sqlite_books: Database, drawn: list[dict[str, Any]], name: str
    ) -> None:
        check_months(sqlite_books, drawn, name)

    @settings(max_examples=50)
    @given(many, zones, groupings)
    def test_every_partition_adds_up_to_the_same(
        self, sqlite_books: Database, drawn: list[dict[str, Any]], name: str, by: list[Dimension]
    ) -> None:
        check_partitions(sqlite_books, drawn, name, by)

    @settings(max_examples=25)
    @given(with_shuffled)
    def test_the_order_of_entries_is_without_effect(
        self, sqlite_books: Database, orders: tuple[list[dict[str, Any]], list[dict[str, Any]]]
    ) -> None:
        check_order(sqlite_books, *orders)

    @settings(max_examples=25)
    @given(with_workspaces)
    def test_a_split_into_workspaces_is_without_effect(
        self, sqlite_books: Database, split: tuple[list[dict[str, Any]], str]
    ) -> None:
        check_split(sqlite_books, *split)


class TestPostgres:
    @settings(max_examples=4)
    @given(many, zones)
    def test_an_invoice_is_the_sum_of_its_month_and_twelve_are_the_year(
        self, postgres_books: Database, drawn: list[dict[str, Any]], name: str
    ) -> None:
        check_months(postgres_books, drawn, name)

    @settings(max_examples=10)
    @given(many, zones, groupings)
    def test_every_partition_adds_up_to_the_same(
        self, postgres_books: Database, drawn: list[dict[str, Any]], name: str, by: list[Dimension]
    ) -> None:
        check_partitions(postgres_books, drawn, name, by)
