"""Books that were put out of order on purpose, and what `reconcile` says of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from mezzo.backends.base import EngineCounts
from mezzo.catalog.cards import load_catalog
from mezzo.kit.ids import new_uuid
from mezzo.metering import liveness
from mezzo.metering.journal import Journal
from mezzo.metering.liveness import interrupt_requests
from mezzo.metering.prices import PriceBook, write_prices
from mezzo.metering.reconcile import Finding, Reconciliation, reconcile
from mezzo.store.database import Database
from mezzo.store.tables import month_tokens, spend, usage_records
from tests.metering.entries import NOW, enter, opening, settlement

COUNTS = EngineCounts(
    run_id="run", weights="nano", started_at=NOW, num_requests=1, prompt_tokens=10, completion_tokens=5
)


@pytest.fixture
def counted() -> list[EngineCounts]:
    """What the engines count at the moment."""
    return []


@pytest.fixture
async def journal(database: Database, counted: list[EngineCounts]) -> AsyncIterator[Journal]:
    server_id = new_uuid()
    with database.write() as connection:
        write_prices(connection, database, PriceBook(load_catalog(), "USD"))
        liveness.enter_server(connection, server_id, NOW)
    journal = Journal(database, server_id, lambda: counted)
    yield journal
    await journal.aclose()


def compare(database: Database) -> Reconciliation:
    with database.read() as connection:
        return reconcile(connection)


def only(found: Reconciliation) -> Finding:
    (finding,) = found.findings
    return finding


async def work(journal: Journal, counted: list[EngineCounts], num_requests: int = 1) -> None:
    """Serve requests in one engine process."""
    counted[:] = [replace(COUNTS, prompt_tokens=10 * num_requests, completion_tokens=5 * num_requests)]
    for _ in range(num_requests):
        of = opening(engine_run_id="run")
        await enter(journal, of)
        await journal.settle(replace(settlement(of), engine_run_id="run"))


async def test_books_in_order(database: Database, journal: Journal, counted: list[EngineCounts]) -> None:
    await work(journal, counted, 3)
    found = compare(database)
    assert found.agrees
    assert found.findings == ()
    assert (found.num_records, found.num_engine_runs, found.amount) == (3, 1, 3 * 12_920)


async def test_a_sum_that_was_changed(
    database: Database, journal: Journal, counted: list[EngineCounts]
) -> None:
    await work(journal, counted)
    with database.write() as connection:
        connection.execute(sa.update(spend).where(spend.c.scope == "workspace").values(amount=1))
    found = compare(database)
    assert not found.agrees
    finding = only(found)
    assert (finding.check, finding.subject) == ("spend", "workspace workspace 2026-09")
    assert "12920" in finding.message


async def test_a_quota_that_was_lost(
    database: Database, journal: Journal, counted: list[EngineCounts]
) -> None:
    await work(journal, counted)
    with database.write() as connection:
        connection.execute(sa.delete(month_tokens))
    assert only(compare(database)).check == "quota"


async def test_a_record_whose_amount_is_not_its_price(
    database: Database, journal: Journal, counted: list[EngineCounts]
) -> None:
    await work(journal, counted)
    of = opening()
    row = settlement(of).row() | {"output_amount": 9_999, "amount": 12_919}
    with database.write() as connection:
        connection.execute(sa.insert(usage_records).values(row))
    finding = next(finding for finding in compare(database).findings if finding.check == "price")
    assert finding.subject == of.id


@pytest.mark.parametrize(("more", "says"), [(4, "the engine counted 4"), (-4, "the records have 4")])
async def test_an_engine_that_counted_otherwise(
    database: Database, journal: Journal, counted: list[EngineCounts], more: int, says: str
) -> None:
    await work(journal, counted)
    counted[:] = [replace(COUNTS, completion_tokens=5 + more)]
    await journal.beat()
    finding = only(compare(database))
    assert finding.is_fault
    assert says in finding.message


async def test_what_a_dead_server_left_is_explained(
    database: Database, journal: Journal, counted: list[EngineCounts]
) -> None:
    await work(journal, counted)
    await enter(journal, opening(engine_run_id="run"))
    counted[:] = [replace(COUNTS, completion_tokens=9)]
    await journal.beat()
    busy = only(compare(database))
    assert not busy.is_fault
    assert "in flight" in busy.message
    with database.write() as connection:
        interrupt_requests(connection, database, journal.server_id)
    left = only(compare(database))
    assert not left.is_fault
    assert "4 completion tokens" in left.message
