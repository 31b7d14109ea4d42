"""The books: every admitted request is entered when it begins and again, once and finally, when it ends.

What is in flight stands in `open_requests`; its end moves it to `usage_records` in one transaction with the sums, the
quota and the stored answer. So whatever dies when, a request is in exactly one of the two tables, and its cost in the
sums exactly if it is in the records.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.backends.base import EngineCounts
from mezzo.metering import idempotency, spending
from mezzo.metering.engine_counts import write_counts
from mezzo.metering.liveness import Beat, write_beat
from mezzo.metering.records import Opening, Settlement
from mezzo.metering.spending import Allowances
from mezzo.store.database import Database, insert_into
from mezzo.store.group_commit import GroupCommit, Outcome, StoreUnavailable
from mezzo.store.tables import api_keys, open_requests, usage_records

# How often it is written down that a key is in use.
_LAST_USED_EVERY_S = 60.0

# Statements are made once: building one costs more than running it.
_END_OPENINGS = (
    sa.delete(open_requests)
    .where(open_requests.c.id.in_(sa.bindparam("ids", expanding=True)))
    .returning(open_requests.c.id)
)
_ENTER_RECORD = sa.insert(usage_records)

Entry = Opening | Settlement | EngineCounts | Beat


class KeyTaken(Exception):
    """Another request claimed the idempotency key first."""


class AlreadySettled(Exception):
    """The request is not in flight any more: this server was taken for dead, and its requests for lost."""


class Journal:
    """Writes the entries of one server process. For one event loop."""

    def __init__(self, database: Database, server_id: str) -> None:
        self.server_id = server_id
        self._database = database
        self._last_used: dict[str, float] = {}
        self._num_open = 0
        self._unsettled: list[Settlement] = []
        self._commits: GroupCommit[Entry] = GroupCommit(database, self._apply, name="journal")

    @property
    def num_open(self) -> int:
        """Requests that this process opened and has not settled."""
        return self._num_open

    async def open(self, opening: Opening) -> None:
        """Enter a request before any work is done for it.

        Raises: SpendLimitReached, QuotaReached, KeyTaken: then it is not entered; StoreUnavailable: then it may be, and
        must be settled as failed. It must be settled too if the caller is cancelled while it waits here.
        """
        self._num_open += 1
        try:
            # Its loss in a power cut is harmless: nothing was answered and nothing billed.
            await self._commits.submit(opening, must_last=False)
        except (spending.SpendLimitReached, spending.QuotaReached, KeyTaken):
            self._num_open -= 1
            raise

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

    def note(self, entry: EngineCounts | Beat) -> asyncio.Future[None]:
        """Write what an engine process says that it did, or that this server lives. Its loss is harmless."""
        return self._commits.submit(entry, must_last=False)

    async def aclose(self) -> None:
        """Write what waits, and end."""
        await self._commits.aclose()

    def _note_settled(self, settlement: Settlement, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and isinstance(done.exception(), StoreUnavailable):
            status = "failed" if settlement.status == "finished" else settlement.status
            self._unsettled.append(replace(settlement, status=status, answer=None))
        else:
            self._num_open -= 1

    def _apply(self, connection: Connection, entries: Sequence[Entry]) -> Sequence[Outcome]:
        openings = [entry for entry in entries if isinstance(entry, Opening)]
        settlements = [entry for entry in entries if isinstance(entry, Settlement)]
        spending.lock(connection, self._database, self._spend_keys(openings, settlements))
        # An entry is hashed by what it is, not by what it says: two are never the same.
        outcomes: dict[int, Outcome] = {}
        self._open_all(connection, openings, outcomes)
        self._settle_all(connection, settlements, outcomes)
        write_counts(
            connection,
            self._database,
            [entry for entry in entries if isinstance(entry, EngineCounts)],
            server_id=self.server_id,
        )
        if any(isinstance(entry, Beat) for entry in entries):
            write_beat(connection, self.server_id)
        return [outcomes.get(id(entry)) for entry in entries]

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
        self, connection: Connection, openings: Sequence[Opening], outcomes: dict[int, Outcome]
    ) -> None:
        allowances = Allowances(connection)
        rows = []
        for opening in openings:
            try:
                allowances.take(opening)
                self._claim(connection, opening)
            except (spending.SpendLimitReached, spending.QuotaReached, KeyTaken) as refusal:
                outcomes[id(opening)] = refusal
            else:
                rows.append(opening.row(self.server_id))
        if rows:
            connection.execute(_enter_opening(self._database.dialect), rows)

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
        self, connection: Connection, settlements: Sequence[Settlement], outcomes: dict[int, Outcome]
    ) -> None:
        if not settlements:
            return
        ids = [settlement.opening.id for settlement in settlements]
        # Whoever deletes the row of a request in flight, and nobody else, enters its end.
        mine = set(connection.scalars(_END_OPENINGS, {"ids": ids}))
        entered = [settlement for settlement in settlements if settlement.opening.id in mine]
        if entered:
            connection.execute(_ENTER_RECORD, [settlement.row() for settlement in entered])
        spending.add_up(connection, self._database, entered)
        for settlement in entered:
            if settlement.opening.claim is not None:
                idempotency.keep(connection, settlement.opening.id, settlement.answer)
        self._note_use(connection, entered)
        for settlement in settlements:
            if settlement.opening.id not in mine:
                outcomes[id(settlement)] = _known_end(connection, settlement)

    def _note_use(self, connection: Connection, settlements: Sequence[Settlement]) -> None:
        now_s = time.monotonic()
        used = {entry.opening.access.key_id: entry.opening.created_at for entry in settlements}
        for key_id, moment in sorted(used.items()):
            if now_s - self._last_used.get(key_id, -_LAST_USED_EVERY_S) >= _LAST_USED_EVERY_S:
                connection.execute(
                    sa.update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=moment)
                )
                self._last_used[key_id] = now_s


@functools.cache
def _enter_opening(dialect: str) -> sa.Insert:
    return insert_into(open_requests, dialect).on_conflict_do_nothing()


def _known_end(connection: Connection, settlement: Settlement) -> Outcome:
    """Tell whether a request that is not in flight is in the books as this settlement would have it.

    It is after a commit whose confirmation was lost. A request that was never entered needs no end either.
    """
    row = connection.execute(
        sa.select(usage_records.c.status, usage_records.c.amount).where(
            usage_records.c.id == settlement.opening.id
        )
    ).one_or_none()
    amount = settlement.amounts.total
    is_known = amount == 0 if row is None else (row.status, row.amount) == (settlement.status, amount)
    return None if is_known else AlreadySettled()
