"""The books as a server uses them: the journal, and what goes on around it from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError

from mezzo.backends.base import EngineCounts
from mezzo.kit.ids import new_uuid
from mezzo.metering import idempotency, liveness
from mezzo.metering.idempotency import AnswerSeal, Claim, KeptAnswer
from mezzo.metering.journal import Journal
from mezzo.metering.liveness import Watch
from mezzo.store.database import Database
from mezzo.store.group_commit import StoreUnavailable, reason

_FORGET_EVERY_S = 3600.0
# A checkpoint keeps the disk busy while requests wait for it, and the log grows by some kilobytes for each of them.
_CHECKPOINT_EVERY_S = 10.0
_log = structlog.get_logger("mezzo.metering")


class Books:
    """The journal of one server process, its signs of life, and its care for what dead servers left.

    counts: the engines' own counts at this moment. clock: the time of day.
    """

    def __init__(
        self,
        database: Database,
        *,
        seal: AnswerSeal,
        clock: Callable[[], datetime],
        counts: Callable[[], Iterable[EngineCounts]],
    ) -> None:
        self.server_id = new_uuid()
        self._database = database
        self._seal = seal
        self._clock = clock
        self._counts = counts
        self._watch = Watch(self.server_id)
        self._journal: Journal | None = None
        self._care: asyncio.Task[None] | None = None

    @property
    def journal(self) -> Journal:
        """The journal; there is one between `start` and `stop`."""
        assert self._journal is not None, "the books are not open"
        return self._journal

    @property
    def num_open(self) -> int:
        """Requests of this server in flight, as the books have it."""
        return self._journal.num_open if self._journal is not None else 0

    @property
    def is_failing(self) -> bool:
        """Whether the last entry could not be written."""
        return self._journal is not None and self._journal.is_failing

    async def start(self) -> None:
        """Open the books. Raises: sqlalchemy's errors if the database cannot be written."""
        await asyncio.to_thread(self._enter)
        self._journal = Journal(self._database, self.server_id, self._counts)
        self._care = asyncio.create_task(self._take_care(), name="books")

    async def stop(self) -> None:
        """Write what is left and close the books. Safe to call twice."""
        if self._journal is None:
            return
        if self._care is not None:
            self._care.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._care
        journal, self._journal = self._journal, None
        journal.settle_rest()
        journal.beat()
        await journal.aclose()
        try:
            await asyncio.to_thread(self._leave)
        except SQLAlchemyError as error:
            _log.error("the books could not be closed", reason=reason(error))

    def seal(self, answer: KeptAnswer) -> idempotency.SealedAnswer:
        """Return an answer as it is stored with the settlement of its request."""
        return self._seal.seal(answer)

    async def find_answer(self, claim: Claim) -> KeptAnswer | None:
        """Return the stored answer for a claim, None if nobody holds the key.

        Raises: KeyReused, InFlight; ValueError if it was sealed with another secret; sqlalchemy's errors.
        """
        sealed = await asyncio.to_thread(self._find, claim)
        return None if sealed is None else self._seal.open(sealed)

    def _find(self, claim: Claim) -> idempotency.SealedAnswer | None:
        with self._database.read() as connection:
            return idempotency.find_answer(connection, claim, self._clock())

    def _enter(self) -> None:
        with self._database.write() as connection:
            liveness.enter_server(connection, self.server_id, self._clock())

    def _leave(self) -> None:
        with self._database.write() as connection:
            liveness.note_stop(connection, self.server_id, self._clock())

    async def _take_care(self) -> None:
        loop = asyncio.get_running_loop()
        forget_at_s = loop.time()
        checkpoint_at_s = loop.time() + _CHECKPOINT_EVERY_S
        while True:
            await asyncio.sleep(liveness.BEAT_EVERY_S)
            try:
                self.journal.settle_rest()
                if self.journal.num_open:
                    await self.journal.beat()
                if loop.time() >= checkpoint_at_s:
                    await asyncio.to_thread(self._database.checkpoint)
                    checkpoint_at_s = loop.time() + _CHECKPOINT_EVERY_S
                await asyncio.to_thread(self._sweep, forget_old=loop.time() >= forget_at_s)
                if loop.time() >= forget_at_s:
                    forget_at_s = loop.time() + _FORGET_EVERY_S
            except (SQLAlchemyError, StoreUnavailable) as error:
                _log.error("the books cannot be kept", reason=reason(error))

    def _sweep(self, *, forget_old: bool) -> None:
        with self._database.read() as connection:
            dead = self._watch.look(connection)
        for server_id in dead:
            with self._database.write() as connection:
                num_requests = liveness.interrupt_requests(connection, self._database, server_id)
            _log.warning("a server died under its requests", server=server_id, requests=num_requests)
        if forget_old:
            with self._database.write() as connection:
                idempotency.forget_old(connection, self._clock())
