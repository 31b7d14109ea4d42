from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from mezzo.backends.base import EngineCounts
from mezzo.kit.ids import new_uuid
from mezzo.metering import liveness
from mezzo.metering.idempotency import (
    AnswerSeal,
    Claim,
    InFlight,
    KeptAnswer,
    KeyReused,
    claim_for,
    find_answer,
)
from mezzo.metering.journal import AlreadySettled, Journal, KeyTaken
from mezzo.metering.liveness import SILENCE_S, Watch, interrupt_requests
from mezzo.metering.spending import QuotaReached, SpendLimitReached
from mezzo.store import group_commit
from mezzo.store.database import Database
from mezzo.store.group_commit import StoreUnavailable
from mezzo.store.tables import (
    engine_runs,
    idempotency_keys,
    month_tokens,
    open_requests,
    spend,
    usage_records,
)
from tests.databases import new_sqlite
from tests.metering.entries import MONTH, NOW, enter, limited, opening, settlement

# 7 x 400 + 3 x 40 + 5 x 2,000 nano-dollars.
COST = 2_800 + 120 + 10_000
MOST = 10 * 400 + 5 * 2_000


async def start(database: Database, counts: Callable[[], list[EngineCounts]] = list) -> Journal:
    server_id = new_uuid()

    def enter() -> None:
        with database.write() as connection:
            liveness.enter_server(connection, server_id, NOW)

    await asyncio.to_thread(enter)
    return Journal(database, server_id, counts)


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    journal = await start(database)
    yield journal
    await journal.aclose()


def rows(database: Database, table: sa.Table) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(sa.select(table)))


def spent(database: Database, scope: str = "workspace") -> int:
    return sum(row.amount for row in rows(database, spend) if row.scope == scope and row.month == MONTH)


class TestOneRequest:
    async def test_is_in_flight_until_it_ends(self, database: Database, journal: Journal) -> None:
        of = opening()
        await enter(journal, of)
        (row,) = rows(database, open_requests)
        assert (row.id, row.server_id, row.reserved) == (of.id, journal.server_id, MOST)
        assert journal.num_open == 1
        await journal.settle(settlement(of))
        assert rows(database, open_requests) == []
        assert journal.num_open == 0

    async def test_its_record_says_what_it_used_and_cost(self, database: Database, journal: Journal) -> None:
        of = opening()
        await enter(journal, of)
        await journal.settle(settlement(of))
        (row,) = rows(database, usage_records)
        assert row.id == of.id
        assert row.created_at == NOW
        assert (row.status, row.month, row.model, row.model_id) == (
            "finished",
            MONTH,
            "mistral-medium-latest",
            "mistral-medium-2505",
        )
        assert (row.prompt_tokens, row.cached_tokens, row.completion_tokens) == (10, 3, 5)
        assert (row.input_amount, row.cached_input_amount, row.output_amount) == (2_800, 120, 10_000)
        assert row.amount == COST
        assert row.price_id == of.price.id

    async def test_counts_for_organisation_workspace_key_and_quota(
        self, database: Database, journal: Journal
    ) -> None:
        of = opening()
        await enter(journal, of)
        await journal.settle(settlement(of))
        assert {(row.scope, row.scope_id, row.amount) for row in rows(database, spend)} == {
            ("organization", "organization", COST),
            ("workspace", "workspace", COST),
            ("api_key", "key", COST),
        }
        (quota,) = rows(database, month_tokens)
        assert quota.tokens == 12  # cached tokens are not held against it

    @pytest.mark.parametrize(
        ("status", "used", "cost"),
        [
            ("aborted", {}, COST),
            ("aborted", {"completion_tokens": 0}, 0),
            ("failed", {}, 0),
            ("finished", {"completion_tokens": 0}, COST - 10_000),
        ],
    )
    async def test_what_an_end_costs(
        self, database: Database, journal: Journal, status: Any, used: dict[str, int], cost: int
    ) -> None:
        of = opening()
        await enter(journal, of)
        await journal.settle(settlement(of, status, **used))
        (row,) = rows(database, usage_records)
        assert row.amount == cost
        assert spent(database) == cost

    async def test_is_entered_once_however_often_it_is_settled(
        self, database: Database, journal: Journal
    ) -> None:
        of = opening()
        await enter(journal, of)
        await asyncio.gather(*(journal.settle(settlement(of)) for _ in range(5)))
        await journal.settle(settlement(of))
        assert len(rows(database, usage_records)) == 1
        assert spent(database) == COST
        with pytest.raises(AlreadySettled):
            await journal.settle(settlement(of, completion_tokens=4))

    async def test_records_cannot_be_changed(self, database: Database, journal: Journal) -> None:
        of = opening()
        await enter(journal, of)
        await journal.settle(settlement(of))
        for statement in (sa.update(usage_records).values(amount=0), sa.delete(usage_records)):
            with pytest.raises(DBAPIError, match="append-only"), database.write() as connection:
                connection.execute(statement)


class TestSpendingLimits:
    @pytest.mark.parametrize("scope", ["organization", "workspace", "api_key"])
    async def test_a_hundred_at_once_take_what_is_left_and_no_more(
        self, database: Database, journal: Journal, scope: str
    ) -> None:
        access = limited(37 * MOST + MOST - 1, scope)
        openings = [opening(access=access) for _ in range(100)]
        outcomes = await asyncio.gather(*(enter(journal, of) for of in openings), return_exceptions=True)
        assert sum(outcome is None for outcome in outcomes) == 37
        assert sum(isinstance(outcome, SpendLimitReached) for outcome in outcomes) == 63
        assert journal.num_open == 37

    async def test_two_servers_share_what_is_left(self, database: Database, journal: Journal) -> None:
        other = await start(database)
        access = limited(20 * MOST)
        outcomes = await asyncio.gather(
            *(enter(random.choice([journal, other]), opening(access=access)) for _ in range(60)),
            return_exceptions=True,
        )
        assert sum(outcome is None for outcome in outcomes) == 20
        await other.aclose()

    async def test_what_was_not_used_is_given_back(self, database: Database, journal: Journal) -> None:
        access = limited(COST + MOST)
        first = opening(access=access)
        await enter(journal, first)
        with pytest.raises(SpendLimitReached):
            await enter(journal, opening(access=access))
        await journal.settle(settlement(first))
        await enter(journal, opening(access=access))

    async def test_another_month_has_a_limit_of_its_own(self, database: Database, journal: Journal) -> None:
        access = limited(MOST)
        await enter(journal, opening(access=access))
        await enter(journal, opening(access=access, created_at=NOW.replace(month=10)))
        with pytest.raises(SpendLimitReached):
            await enter(journal, opening(access=access, created_at=NOW.replace(day=30)))

    async def test_a_limit_of_zero_allows_nothing(self, database: Database, journal: Journal) -> None:
        with pytest.raises(SpendLimitReached):
            await enter(journal, opening(access=limited(0)))
        assert rows(database, open_requests) == []

    async def test_a_quota_counts_what_was_used(self, database: Database, journal: Journal) -> None:
        for _ in range(2):
            of = opening(tokens_per_month=13)
            await enter(journal, of)
            await journal.settle(settlement(of))
        with pytest.raises(QuotaReached):
            await enter(journal, opening(tokens_per_month=13))
        await enter(journal, opening(tokens_per_month=13, model_id="mistral-medium-2508"))


class TestDeadServers:
    async def test_requests_of_a_silent_server_are_interrupted_and_free(
        self, database: Database, journal: Journal
    ) -> None:
        access = limited(MOST)
        dead = await start(database)
        left = opening(access=access)
        await enter(dead, left)
        now_s = 0.0
        watch = Watch(journal.server_id, lambda: now_s)
        with database.write() as connection:
            assert watch.look(connection) == []
            now_s = SILENCE_S - 0.1
            assert watch.look(connection) == []
            now_s = SILENCE_S
            assert watch.look(connection) == [dead.server_id]
            assert interrupt_requests(connection, database, dead.server_id) == 1
            assert interrupt_requests(connection, database, dead.server_id) == 0
        (row,) = rows(database, usage_records)
        assert (row.id, row.status, row.amount) == (left.id, "interrupted", 0)
        await enter(journal, opening(access=access))
        with pytest.raises(AlreadySettled):  # it was only asleep
            await dead.settle(settlement(left))
        assert spent(database) == 0
        await dead.aclose()

    async def test_a_beating_server_is_left_alone(self, database: Database, journal: Journal) -> None:
        busy = await start(database)
        await enter(busy, opening())
        now_s = 0.0
        watch = Watch(journal.server_id, lambda: now_s)
        for _ in range(5):
            with database.read() as connection:
                assert watch.look(connection) == []
            now_s += SILENCE_S - 0.1
            await busy.beat()
        await busy.aclose()


SEAL = AnswerSeal("s" * 43)
ANSWER = KeptAnswer(200, {"content-type": "application/json"}, b'{"answer": 42}')


def claim(key: str = "key", body: bytes = b"{}", scope_id: str = "workspace") -> Claim:
    return claim_for(scope_id, key, method="POST", path="/v1/chat/completions", body=body)


class TestIdempotency:
    async def test_the_first_call_gets_the_key(self, database: Database, journal: Journal) -> None:
        outcomes = await asyncio.gather(
            *(enter(journal, opening(claim=claim())) for _ in range(10)), return_exceptions=True
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["KeyTaken"] * 9 + ["NoneType"]
        assert len(rows(database, open_requests)) == 1
        await enter(journal, opening(claim=claim(scope_id="other workspace")))

    async def test_the_answer_is_there_when_the_call_is_in_the_books(
        self, database: Database, journal: Journal
    ) -> None:
        of = opening(claim=claim())
        await enter(journal, of)
        with database.read() as connection, pytest.raises(InFlight):
            find_answer(connection, claim(), NOW)
        end = settlement(of)
        await journal.settle(
            type(end)(
                opening=end.opening,
                status=end.status,
                usage=end.usage,
                latency_us=1,
                answer=SEAL.seal(ANSWER),
            )
        )
        with database.read() as connection:
            found = find_answer(connection, claim(), NOW)
            assert SEAL.open(found) == ANSWER
            with pytest.raises(KeyReused):
                find_answer(connection, claim(body=b'{"other": 1}'), NOW)
        assert ANSWER.body not in str(rows(database, idempotency_keys)).encode()
        with pytest.raises(ValueError, match="another secret"):
            AnswerSeal("t" * 43).open(found)

    async def test_a_call_that_failed_gives_the_key_back(self, database: Database, journal: Journal) -> None:
        of = opening(claim=claim())
        await enter(journal, of)
        await journal.settle(settlement(of, "failed"))
        await enter(journal, opening(claim=claim()))

    async def test_a_dead_server_s_key_is_given_back(self, database: Database, journal: Journal) -> None:
        dead = await start(database)
        await enter(dead, opening(claim=claim()))
        with pytest.raises(KeyTaken):
            await enter(journal, opening(claim=claim()))
        with database.write() as connection:
            interrupt_requests(connection, database, dead.server_id)
        await enter(journal, opening(claim=claim()))
        await dead.aclose()

    async def test_a_refused_call_takes_no_key(self, database: Database, journal: Journal) -> None:
        with pytest.raises(SpendLimitReached):
            await enter(journal, opening(claim=claim(), access=limited(0)))
        assert rows(database, idempotency_keys) == []

    async def test_a_key_is_free_again_after_a_day(self, database: Database, journal: Journal) -> None:
        await enter(journal, opening(claim=claim()))
        with pytest.raises(KeyTaken):
            await enter(journal, opening(claim=claim(), created_at=NOW.replace(hour=23)))
        await enter(journal, opening(claim=claim(), created_at=NOW.replace(day=2)))


class TestTrouble:
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(group_commit, "RETRY_AFTER_S", (0.01, 0.02))

    async def test_one_bad_entry_does_not_take_others_with_it(
        self, database: Database, journal: Journal
    ) -> None:
        good = [opening() for _ in range(3)]
        bad = opening(model=None)
        outcomes = await asyncio.gather(
            *(enter(journal, of) for of in [good[0], bad, *good[1:]]), return_exceptions=True
        )
        assert [type(outcome).__name__ for outcome in outcomes] == [
            "NoneType",
            "StoreUnavailable",
            "NoneType",
            "NoneType",
        ]
        assert len(rows(database, open_requests)) == 3

    async def test_a_lock_held_by_somebody_else_is_waited_for(
        self, database: Database, journal: Journal
    ) -> None:
        of = opening()
        await enter(journal, of)
        is_locked = threading.Event()

        def hold() -> None:
            with database.write() as connection:
                connection.execute(sa.update(open_requests).values(route="x"))
                is_locked.set()
                time.sleep(0.3)

        holding = asyncio.create_task(asyncio.to_thread(hold))
        await asyncio.to_thread(is_locked.wait)
        await journal.settle(settlement(of))
        await holding
        assert len(rows(database, usage_records)) == 1

    async def test_a_full_disk_is_told_and_recovered_from(self, tmp_path: Any) -> None:
        database = Database(new_sqlite(tmp_path))
        is_full = True

        def limit(dbapi_connection: Any, record: object) -> None:
            if is_full:
                pages = dbapi_connection.execute("PRAGMA page_count").fetchone()[0]
                dbapi_connection.execute(f"PRAGMA max_page_count={pages}")

        journal = await start(database)
        of = opening()
        await enter(journal, of)
        sa.event.listen(database._engine, "connect", limit)
        journal._commits._connection.close()
        journal._commits._connection = None
        database.dispose()
        openings = [opening(model="m" * 250) for _ in range(200)]
        outcomes = await asyncio.gather(*(enter(journal, of) for of in openings), return_exceptions=True)
        told = [isinstance(outcome, StoreUnavailable) for outcome in outcomes if outcome is not None]
        assert len(told) > 100  # a few may have had room in the last page
        assert all(told)
        is_full = False
        await journal.settle(settlement(of))
        for late in openings:
            await journal.settle(settlement(late, "failed"))
        assert spent(database) == COST
        assert rows(database, open_requests) == []
        assert journal.num_open == 0
        await journal.aclose()

    async def test_engines_counts_survive_a_transaction_that_is_tried_again(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counts = EngineCounts(
            run_id="run",
            weights="nano",
            started_at=NOW,
            num_requests=1,
            prompt_tokens=10,
            completion_tokens=0,
        )
        counted = [counts]
        journal = await start(database, lambda: counted)
        enter_ends = journal._settle_all

        def fail_once(*arguments: Any) -> None:
            monkeypatch.undo()
            _unreachable()

        monkeypatch.setattr(journal, "_settle_all", fail_once)
        of = opening()
        await journal.open(of)
        counted[0] = replace(counts, completion_tokens=5)
        await journal.settle(settlement(of))
        assert journal._settle_all == enter_ends, "nothing failed"
        (run,) = rows(database, engine_runs)
        assert (run.prompt_tokens, run.completion_tokens) == (10, 5)
        await journal.aclose()

    async def test_an_end_that_could_not_be_written_is_entered_later_without_a_charge(
        self, database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        of = opening()
        await enter(journal, of)
        monkeypatch.setattr(database, "writer", _unreachable)
        journal._commits._drop_connection()
        with pytest.raises(StoreUnavailable):
            await journal.settle(settlement(of))
        assert journal.num_open == 1
        monkeypatch.undo()
        journal.settle_rest()
        await journal.aclose()
        (row,) = rows(database, usage_records)
        assert (row.status, row.amount) == ("failed", 0)
        assert spent(database) == 0


def _unreachable() -> Any:
    raise DBAPIError.instance("", None, ConnectionError("gone"), Exception, connection_invalidated=True)
