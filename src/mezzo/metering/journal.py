"""The books: every admitted request is entered when it begins and again, once and finally, when it ends.

What is in flight stands in `open_requests`; its end moves it to `usage_records` in one transaction with the sums, the
quota and the stored answer. So whatever dies when, a request is in exactly one of the two tables, and its cost in the
sums exactly if it is in the records.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from mezzo.backends.base import EngineCounts
from mezzo.metering import idempotency, spending
from mezzo.metering.engine_counts import write_counts
from mezzo.metering.liveness import Beat, write_beat
from mezzo.metering.records import Opening, Settlement
from mezzo.metering.spending import Allowances
from mezzo.store.database import Database, insert_into
from mezzo.store.group_commit import GroupCommit, Outcome, StoreUnavailable
from mezzo.store.prepared import Prepared
from mezzo.store.tables import api_keys, open_requests, usage_records

# How often it is written down that a key is in use.
_LAST_USED_EVERY_S = 60.0
_WRITTEN_COUNTS = "mezzo_written_counts"

# Statements are made once: building one costs more than running it.
_END_OPENINGS = (
    sa.delete(open_requests)
    .where(open_requests.c.id.in_(sa.bindparam("ids", expanding=True)))
    .returning(open_requests.c.id)
)
_FIND_RECORDS = sa.select(usage_records.c.id, usage_records.c.status, usage_records.c.amount).where(
    usage_records.c.id.in_(sa.bindparam("ids", expanding=True))
)
_ENTER_RECORD = Prepared(lambda dialect: sa.insert(usage_records), usage_records.c.keys())
_ENTER_OPENING = Prepared(
    lambda dialect: insert_into(open_requests, dialect).on_conflict_do_nothing(), open_requests.c.keys()
)

Entry = Opening | Settlement | Beat


class KeyTaken(Exception):
    """Another request claimed the idempotency key first."""


class AlreadySettled(Exception):
    """The request is not in flight any more: this server was taken for dead, and its requests for lost."""


class Journal:
    """Writes the entries of one server process. For one event loop.

    counts: the engines' own counts at the moment; called from the writing thread.
    """

    def __init__(
        self, database: Database, server_id: str, counts: Callable[[], Iterable[EngineCounts]] = tuple
    ) -> None:
        self.server_id = server_id
        self._database = database
        self._counts = counts
        self._last_used: dict[str, float] = {}
        self._num_open = 0
        self._unsettled: list[Settlement] = []
        self._commits: GroupCommit[Entry] = GroupCommit(database, self._apply, name="journal")

    @property
    def num_open(self) -> int:
        """Requests that this process opened and has not settled."""
        return self._num_open

    @property
    def is_failing(self) -> bool:
        """Whether the last entry could not be written."""
        return self._commits.is_failing

    async def open(self, opening: Opening) -> asyncio.Future[None]:
        """Enter a request before any work is done for it.

        A request that may be refused here is entered when this returns. Any other is soon: nothing of its answer may be
        sent before the future that is returned has ended.
        Raises: SpendLimitReached, QuotaReached, KeyTaken: then it is not entered; StoreUnavailable: then it may be, and
        must be settled as failed, as if the caller is cancelled while it waits here. The future: StoreUnavailable.
        """
        self._num_open += 1
        may_wait = not opening.may_be_refused and not self._commits.is_failing
        # Its loss in a power cut is harmless: nothing was answered and nothing billed.
        entered = self._commits.submit(opening, must_last=False, may_wait=may_wait)
        if not may_wait:
            try:
                await asyncio.shield(entered)
            except (spending.SpendLimitReached, spending.QuotaReached, KeyTaken):
                self._num_open -= 1
                raise
        return entered

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Enter the end of a request; nobody has to wait. The future ends when it is durable.

        The future raises: AlreadySettled; StoreUnavailable: the client of a request that had finished must be told that
        it failed, and as such, without a charge, it will be entered by `settle_rest`.
        """
        done = self._commits.submit(settlement)
        done.add_done_callback(functools.partial(self._note_settled, settlement))
        return done

    def settle_rest(self) -> None:
        """Try again to enter what could not be. Called now and then."""
        rest, self._unsettled = self._unsettled, []
        for settlement in rest:
            self.settle(settlement)

    def beat(self) -> asyncio.Future[None]:
        """Write that this server lives, and what its engines count. Its loss is harmless."""
        return self._commits.submit(Beat(), must_last=False)

    async def aclose(self) -> None:
        """Write what waits, and end."""
        await self._commits.aclose()

    def _note_settled(self, settlement: Settlement, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and isinstance(done.exception(), StoreUnavailable):
            status = "failed" if settlement.status == "finished" else settlement.status
            self._unsettled.append(replace(settlement, status=status, answer=None))
        else:
            self._num_open -= 1

    def _apply(self, connection: Connection, entries: Sequence[Entry], is_retry: bool) -> Sequence[Outcome]:
        openings = [entry for entry in entries if isinstance(entry, Opening)]
        settlements = [entry for entry in entries if isinstance(entry, Settlement)]
        # First, so that at no moment the records say more than the engines.
        self._write_counts(connection)
        if not self._database.is_sqlite:  # which has one writer anyway
            spending.lock(connection, self._spend_keys(openings, settlements))
        # An entry is hashed by what it is, not by what it says: two are never the same.
        outcomes: dict[int, Outcome] = {}
        ended = set() if is_retry else {settlement.opening.id for settlement in settlements}
        opened = self._open_all(connection, openings, ended, outcomes)
        self._settle_all(connection, settlements, opened, outcomes)
        if any(isinstance(entry, Beat) for entry in entries):
            write_beat(connection, self.server_id)
        return [outcomes.get(id(entry)) for entry in entries]

    def _write_counts(self, connection: Connection) -> None:
        # Remembered with the connection: one that fails, and takes what it wrote with it, is never used again.
        written: dict[str, EngineCounts] = connection.info.setdefault(_WRITTEN_COUNTS, {})
        counts = {of.run_id: of for of in self._counts()}
        changed = [of for run_id, of in counts.items() if written.get(run_id) != of]
        write_counts(connection, changed, server_id=self.server_id)
        connection.info[_WRITTEN_COUNTS] = counts

    @staticmethod
    def _spend_keys(
        openings: Sequence[Opening], settlements: Sequence[Settlement]
    ) -> list[spending.SpendKey]:
        keys: list[spending.SpendKey] = [
            (limit.scope, limit.scope_id, opening.month)
            for opening in openings
            for limit in opening.access.spend_limits
        ]
        for settlement in settlements:
            if settlement.amounts.total:
                keys += spending.spend_keys(settlement.opening)
        return keys

    def _open_all(
        self,
        connection: Connection,
        openings: Sequence[Opening],
        ended: set[str],
        outcomes: dict[int, Outcome],
    ) -> set[str]:
        """Enter openings; return those that end in this transaction, which go straight into the records."""
        allowances = Allowances(connection)
        rows, opened = [], set()
        for opening in openings:
            try:
                allowances.take(opening)
                self._claim(connection, opening)
            except (spending.SpendLimitReached, spending.QuotaReached, KeyTaken) as refusal:
                outcomes[id(opening)] = refusal
                continue
            if opening.id in ended:
                opened.add(opening.id)
            else:
                rows.append(opening.row(self.server_id))
        if rows:
            _ENTER_OPENING.run(connection, rows)
        return opened

    def _claim(self, connection: Connection, opening: Opening) -> None:
        if opening.claim is not None and not idempotency.take(
            connection,
            self._database,
            opening.claim,
            request_id=opening.id,
            server_id=self.server_id,
            now=opening.created_at,
        ):
            raise KeyTaken

    def _settle_all(
        self,
        connection: Connection,
        settlements: Sequence[Settlement],
        opened: set[str],
        outcomes: dict[int, Outcome],
    ) -> None:
        if not settlements:
            return
        ids = [entry.opening.id for entry in settlements if entry.opening.id not in opened]
        # Whoever deletes the row of a request in flight, and nobody else, enters its end.
        mine = opened | set(connection.scalars(_END_OPENINGS, {"ids": ids})) if ids else opened
        rest = [request_id for request_id in ids if request_id not in mine]
        known = {row.id: row for row in connection.execute(_FIND_RECORDS, {"ids": rest})} if rest else {}
        entered: dict[str, Settlement] = {}
        for settlement in settlements:
            request_id = settlement.opening.id
            if request_id in known:
                outcomes[id(settlement)] = _known_end(known[request_id], settlement)
            elif request_id in entered:
                outcomes[id(settlement)] = _same_end(entered[request_id], settlement)
            else:
                # Also if its opening could not be written: this is the first that the books hear of it.
                entered[request_id] = settlement
        self._enter(connection, list(entered.values()))

    def _enter(self, connection: Connection, settlements: Sequence[Settlement]) -> None:
        if not settlements:
            return
        _ENTER_RECORD.run(connection, [settlement.row() for settlement in settlements])
        spending.add_up(connection, settlements)
        for settlement in settlements:
            if settlement.opening.claim is not None:
                idempotency.keep(connection, settlement.opening.id, settlement.answer)
        self._note_use(connection, settlements)

    def _note_use(self, connection: Connection, settlements: Sequence[Settlement]) -> None:
        now_s = time.monotonic()
        used = {entry.opening.access.key_id: entry.opening.created_at for entry in settlements}
        for key_id, moment in sorted(used.items()):
            if now_s - self._last_used.get(key_id, -_LAST_USED_EVERY_S) >= _LAST_USED_EVERY_S:
                connection.execute(
                    sa.update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=moment)
                )
                self._last_used[key_id] = now_s


def _known_end(row: Row[Any, Any, Any], settlement: Settlement) -> Outcome:
    """Tell whether a record says what a settlement says: it does after a commit whose confirmation was lost."""
    is_same = (row.status, row.amount) == (settlement.status, settlement.amounts.total)
    return None if is_same else AlreadySettled()


def _same_end(first: Settlement, second: Settlement) -> Outcome:
    is_same = (first.status, first.amounts.total) == (second.status, second.amounts.total)
    return None if is_same else AlreadySettled()
