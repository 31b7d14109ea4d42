"""Invoices: one computed by hand, when one is final, and documents that nobody's names can break."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from mezzo.kit.money import exact_text
from mezzo.metering.invoices.data import to_csv, to_json
from mezzo.metering.invoices.invoice import BooksContradictory, Invoice, make_invoice
from mezzo.metering.invoices.page import to_html
from mezzo.metering.invoices.pdf import to_pdf
from mezzo.metering.names import load_names
from mezzo.metering.periods import Month, PeriodInvalid, find_zone
from mezzo.store.database import Database
from mezzo.store.tables import open_requests, organizations, prices, workspaces
from tests.metering.reading import text_of_html, text_of_pdf
from tests.metering.rows import (
    MODEL,
    START,
    add_open_request,
    add_organization,
    add_records,
    new_id,
    price_id,
    record,
)

SEPTEMBER = Month.parse("2026-09")
LATER = datetime(2026, 11, 1, tzinfo=UTC)
DOCS = Path(__file__).parents[2] / "docs" / "usage-and-invoices.md"

# The prices, in nano-dollars a token: a price of 0.40 dollars per million tokens is 400 of them.
#            input    cached    output
# standard     400        40     2,000
# priority     700        70     3,500
# batch        200        20     1,000
#
# Workspace 1111…, standard:     input            cached          output
#   finished, 1,000 + 500        1,000                               500
#   finished, 10,000 + 1,200     2,000             8,000           1,200
#   aborted,  100 + 10             100                                10
#   aborted before any token, failed, interrupted:  nothing
#   together                     3,100             8,000           1,710
#   at                             400                40           2,000
#   amount                   1,240,000           320,000       3,420,000   subtotal     4,980,000 = $0.004980000
# Workspace 2222…, batch:      1,000,000                         250,000
#   amount                 200,000,000                       250,000,000
# Workspace 2222…, priority:       300                               100
#   amount                     210,000                           350,000   subtotal   450,560,000 = $0.450560000
#                                                                          total      455,540,000 = $0.455540000
GOLDEN_CSV = f"""\
invoice,status,row,workspace_id,model_id,service_tier,token_kind,price_id,tokens,price_per_million,amount,currency
7C9E6679-2026-09,final,line,1111,{MODEL},standard,input,{price_id()},3100,0.40,0.001240000,USD
7C9E6679-2026-09,final,line,1111,{MODEL},standard,cached_input,{price_id()},8000,0.04,0.000320000,USD
7C9E6679-2026-09,final,line,1111,{MODEL},standard,output,{price_id()},1710,2.00,0.003420000,USD
7C9E6679-2026-09,final,subtotal,1111,,,,,,,0.004980000,USD
7C9E6679-2026-09,final,line,2222,{MODEL},batch,input,{price_id("batch")},1000000,0.20,0.200000000,USD
7C9E6679-2026-09,final,line,2222,{MODEL},batch,output,{price_id("batch")},250000,1.00,0.250000000,USD
7C9E6679-2026-09,final,line,2222,{MODEL},priority,input,{price_id("priority")},300,0.70,0.000210000,USD
7C9E6679-2026-09,final,line,2222,{MODEL},priority,output,{price_id("priority")},100,3.50,0.000350000,USD
7C9E6679-2026-09,final,subtotal,2222,,,,,,,0.450560000,USD
7C9E6679-2026-09,final,total,,,,,,,,0.455540000,USD
"""
GOLDEN_ORGANIZATION = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


def invoice_of(
    database: Database,
    organization: str,
    month: Month = SEPTEMBER,
    *,
    zone: str = "UTC",
    now: datetime = LATER,
) -> Invoice:
    with database.read() as connection:
        return make_invoice(connection, organization, month, zone=find_zone(zone), now=now)


def add_golden_records(database: Database) -> None:
    def used(
        workspace: str, at: str, prompt: int, cached: int, completion: int, **changed: str
    ) -> dict[str, object]:
        tokens = {"prompt_tokens": prompt, "cached_tokens": cached, "completion_tokens": completion}
        return record(GOLDEN_ORGANIZATION, workspace, at, **tokens, **changed)

    add_records(
        database,
        [
            used("2222", "2026-09-30 23:59:59.999999+00:00", 1_000_000, 0, 250_000, service_tier="batch"),
            used("1111", "2026-09-01 00:00:00+00:00", 1000, 0, 500),
            used("1111", "2026-09-02 08:00:00+00:00", 10_000, 8000, 1200),
            used("1111", "2026-09-02 09:00:00+00:00", 100, 0, 10, status="aborted"),
            used("1111", "2026-09-02 10:00:00+00:00", 700, 0, 0, status="aborted"),
            used("1111", "2026-09-02 11:00:00+00:00", 5000, 0, 30, status="failed"),
            used("1111", "2026-09-02 12:00:00+00:00", 5000, 0, 0, status="interrupted"),
            used("2222", "2026-09-15 12:00:00+00:00", 300, 0, 100, service_tier="priority"),
            used("1111", "2026-08-31 23:59:59.999999+00:00", 9, 0, 9),
            used("1111", "2026-10-01 00:00:00+00:00", 9, 0, 9),
        ],
    )


@pytest.fixture(scope="module")
def golden(books: Database) -> Database:
    add_organization(books, "1111", "2222", organization_id=GOLDEN_ORGANIZATION)
    add_golden_records(books)
    return books


class TestGolden:
    def test_every_line_is_the_one_computed_by_hand(self, golden: Database) -> None:
        assert to_csv(invoice_of(golden, GOLDEN_ORGANIZATION)).decode() == GOLDEN_CSV

    def test_is_the_example_of_the_documentation(self) -> None:
        assert GOLDEN_CSV in DOCS.read_text(encoding="utf-8")

    def test_json_says_the_same(self, golden: Database) -> None:
        document = json.loads(to_json(invoice_of(golden, GOLDEN_ORGANIZATION)))
        rows = list(csv.DictReader(GOLDEN_CSV.splitlines()))
        lines = [
            {"workspace_id": section["workspace_id"], **line}
            for section in document["workspaces"]
            for line in section["lines"]
        ]
        shown = [{name: row[name] for name in lines[0]} for row in rows if row["row"] == "line"]
        assert [{name: str(value) for name, value in line.items()} for line in lines] == shown
        assert [section["amount"] for section in document["workspaces"]] == ["0.004980000", "0.450560000"]
        assert document["amount"] == "0.455540000"
        assert {name: document[name] for name in ("number", "status", "provisional_because", "month")} == {
            "number": "7C9E6679-2026-09",
            "status": "final",
            "provisional_because": None,
            "month": "2026-09",
        }
        assert (document["period_start"], document["period_end"]) == (
            "2026-09-01T00:00:00Z",
            "2026-10-01T00:00:00Z",
        )

    def test_quantities_times_prices_are_the_amounts_where_nothing_was_rounded(
        self, golden: Database
    ) -> None:
        for section in invoice_of(golden, GOLDEN_ORGANIZATION).sections:
            for line in section.lines:
                assert line.tokens * Decimal(line.per_million) / 10**6 == Decimal(exact_text(line.amount))

    def test_the_pages_round_the_total_once_and_show_the_exact_one(self, golden: Database) -> None:
        with golden.read() as connection:
            names = load_names(connection, GOLDEN_ORGANIZATION)
        invoice = invoice_of(golden, GOLDEN_ORGANIZATION)
        for text in (text_of_html(to_html(invoice, names)), text_of_pdf(to_pdf(invoice, names))):
            assert "Total USD 0.46" in text
            assert "exactly USD 0.455540000" in text
            assert "Provisional" not in text
            assert text.count("Subtotal") == 2
            for shown in ("Name of 1111", "1,000,000", "0.004980000", "0.450560000", price_id("batch")):
                assert shown in text.replace("\n", "")


def test_a_line_is_the_sum_of_its_records_and_never_a_product(books: Database, organization: str) -> None:
    """At 0.2625 dollars per million, one token is 262.5 nano-dollars, which each request rounds up to 263."""
    price = f"medium/USD/{organization}"
    with books.write() as connection:
        connection.execute(
            sa.insert(prices).values(
                id=price,
                model_id="medium",
                currency="USD",
                service_tier="standard",
                valid_from=START,
                input_per_million="0.2625",
                cached_input_per_million="0.2625",
                output_per_million="0",
            )
        )
    used = {
        "model_id": "medium",
        "price_id": price,
        "prompt_tokens": 1,
        "cached_tokens": 0,
        "input_amount": 263,
        "cached_input_amount": 0,
        "output_amount": 0,
    }
    add_records(books, [record(organization, "w", "2026-09-01 00:00:00+00:00", **used) for _ in range(2)])
    ((line, output),) = [section.lines for section in invoice_of(books, organization).sections]
    assert (line.tokens, line.amount) == (2, 526)
    assert line.tokens * 262.5 == 525
    assert (output.tokens, output.amount) == (100, 0)  # free, and on the invoice


class TestFinal:
    def test_is_the_same_bytes_whatever_happens_later(self, books: Database, organization: str) -> None:
        workspace = new_id("workspace")
        add_organization(books, workspace, organization_id=organization)
        add_records(books, [record(organization, workspace, "2026-09-05 00:00:00+00:00")])
        before = invoice_of(books, organization, now=datetime(2026, 10, 1, 1, tzinfo=UTC))
        with books.write() as connection:
            connection.execute(
                sa.update(workspaces)
                .where(workspaces.c.id == workspace)
                .values(name="=1+1", archived_at=LATER)
            )
            connection.execute(
                sa.update(organizations).where(organizations.c.id == organization).values(name="B")
            )
            connection.execute(
                sa.insert(prices).values(
                    id=f"later/{organization}",
                    model_id=MODEL,
                    currency="USD",
                    service_tier="standard",
                    valid_from=LATER,
                    input_per_million="9",
                    cached_input_per_million="9",
                    output_per_million="9",
                )
            )
        add_records(
            books,
            [
                record(organization, workspace, "2026-10-01 00:00:00+00:00"),
                record(new_id("organization"), workspace, "2026-09-05 00:00:00+00:00"),
            ],
        )
        after = invoice_of(books, organization, now=datetime(2036, 1, 1, tzinfo=UTC))
        assert before.provisional is None
        assert before.amount == 364_000 + 100_000  # 900 * 400 + 100 * 40, and 50 * 2,000
        assert to_json(after) == to_json(before)
        assert to_csv(after) == to_csv(before)

    @pytest.mark.parametrize(
        ("now", "because"),
        [
            ("2026-09-30 23:59:59+00:00", "the month is not over"),
            ("2026-10-01 00:59:59+00:00", "the month ended less than an hour ago"),
            ("2026-10-01 01:00:00+00:00", None),
        ],
    )
    def test_not_before_an_hour_after_the_month(
        self, books: Database, organization: str, now: str, because: str | None
    ) -> None:
        invoice = invoice_of(books, organization, now=datetime.fromisoformat(now))
        assert invoice.provisional == because
        document = json.loads(to_json(invoice))
        assert (document["status"], document["provisional_because"]) == (
            "provisional" if because else "final",
            because,
        )

    def test_not_while_a_request_of_the_month_has_not_ended(self, books: Database, organization: str) -> None:
        add_organization(books, organization_id=organization)
        add_open_request(books, organization, "2026-10-01 00:00:00+00:00")
        add_open_request(books, new_id("organization"), "2026-09-30 23:00:00+00:00")
        assert invoice_of(books, organization).provisional is None
        request_id = add_open_request(books, organization, "2026-09-30 23:59:59.999999+00:00")
        invoice = invoice_of(books, organization)
        assert invoice.provisional == "requests of the month that have not ended: 1"
        assert b",provisional,total," in to_csv(invoice)
        with books.read() as connection:
            names = load_names(connection, organization)
        for text in (text_of_html(to_html(invoice, names)), text_of_pdf(to_pdf(invoice, names))):
            assert "Provisional: requests of the month that have not ended: 1." in text
        with books.write() as connection:
            connection.execute(sa.delete(open_requests).where(open_requests.c.id == request_id))
        assert invoice_of(books, organization).provisional is None

    def test_a_month_that_has_not_begun_has_no_invoice(self, books: Database, organization: str) -> None:
        with pytest.raises(PeriodInvalid, match="2026-12 has not begun"):
            invoice_of(books, organization, Month.parse("2026-12"))


def test_the_month_of_a_time_zone_has_a_number_of_its_own(books: Database, organization: str) -> None:
    add_records(
        books,
        [
            record(organization, "w", "2026-08-31 22:00:00+00:00"),  # midnight in Paris
            record(organization, "w", "2026-09-30 22:00:00+00:00"),  # midnight, a month later
        ],
    )
    utc, paris = invoice_of(books, organization), invoice_of(books, organization, zone="Europe/Paris")
    assert utc.number.endswith("-2026-09")
    assert paris.number == f"{utc.number}-Europe.Paris"
    assert utc.sections[0].lines[0].tokens == paris.sections[0].lines[0].tokens == 900
    assert utc.period.start != paris.period.start


class TestContradictions:
    def test_a_price_that_is_not_in_the_books(self, books: Database, organization: str) -> None:
        add_records(books, [record(organization, "w", "2026-09-01 00:00:00+00:00", price_id="nowhere")])
        with pytest.raises(BooksContradictory, match="nowhere"):
            invoice_of(books, organization)

    def test_an_amount_for_a_request_that_failed(self, books: Database, organization: str) -> None:
        add_records(
            books, [record(organization, "w", "2026-09-01 00:00:00+00:00", status="failed", input_amount=3)]
        )
        with pytest.raises(BooksContradictory, match="3 nano-units"):
            invoice_of(books, organization)

    def test_a_price_in_another_currency(self, books: Database, organization: str) -> None:
        price = f"medium/EUR/{organization}"
        with books.write() as connection:
            connection.execute(
                sa.insert(prices).values(
                    id=price,
                    model_id="medium",
                    currency="EUR",
                    service_tier="standard",
                    valid_from=START,
                    input_per_million="1",
                    cached_input_per_million="1",
                    output_per_million="1",
                )
            )
        add_records(books, [record(organization, "w", "2026-09-01 00:00:00+00:00", price_id=price)])
        with pytest.raises(BooksContradictory, match="EUR"):
            invoice_of(books, organization)
