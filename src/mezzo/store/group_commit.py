"""Many small changes, few commits: whatever waits is written in one transaction, by one thread.

A commit costs the same for one change as for a hundred, so a busy server writes more in each and no slower. Whoever
hands in a change learns when it is durable. Nothing is lost while the database is away for a moment: the batch is
tried again; when it stays away, every waiting change fails with `StoreUnavailable` and none is half done.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from mezzo.store.database import Database

MAX_BATCH = 500
_MAX_DEFERRED_S = 0.003
# Together a little over two seconds: a restart of the database or another writer's long transaction.
RETRY_AFTER_S = (0.02, 0.1, 0.5, 1.5)

_C = TypeVar("_C")
_log = structlog.get_logger("mezzo.store")

Outcome = BaseException | None
Apply = Callable[[Connection, Sequence[_C], bool], Sequence[Outcome]]
"""Writes changes, and says of each None, or the refusal that its owner gets; a refused change has written nothing. The
flag is set where they may have been written already: the connection broke before the commit was confirmed."""


class StoreUnavailable(Exception):
    """The change was not written: the database cannot be reached, or its disk is full."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[_C]):
    change: _C
    done: asyncio.Future[None]
    must_last: bool


class GroupCommit(Generic[_C]):
    """Writes changes in the order in which they are handed in. For one event loop."""

    def __init__(self, database: Database, apply: Apply[_C], *, name: str) -> None:
        """apply: runs in the writing thread, inside a transaction."""
        self._database = database
        self._apply = apply
        self._queue: queue.SimpleQueue[list[_Waiting[_C]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._deferred: list[_Waiting[_C]] = []
        self._is_closed = False
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_failing(self) -> bool:
        """Whether the last transaction could not be written."""
        return self._is_failing

    def submit(self, change: _C, *, must_last: bool = True, may_wait: bool = False) -> asyncio.Future[None]:
        """Hand in a change. The future ends when it is written, or with its refusal, or with StoreUnavailable.

        must_last: it has to survive a power cut too; False for what only has to survive this process, and is quicker.
        may_wait: for the next change that may not, or for a few milliseconds; nothing later goes before it.
        The change is written even if nobody waits for the future.
        """
        done: asyncio.Future[None] = self._loop.create_future()
        if self._is_closed:
            done.set_exception(StoreUnavailable("the store is closed"))
            return done
        self._deferred.append(_Waiting(change, done, must_last))
        if not may_wait:
            self._flush()
        elif len(self._deferred) == 1:
            self._loop.call_later(_MAX_DEFERRED_S, self._flush)
        return done

    def _flush(self) -> None:
        if self._deferred:
            self._queue.put(self._deferred)
            self._deferred = []

    async def aclose(self) -> None:
        """Write what waits, then end the thread. Safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            self._flush()
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._next_batch()
            if batch:
                self._report(batch, self._write(batch))
        self._drop_connection()

    def _next_batch(self) -> tuple[list[_Waiting[_C]], bool]:
        batch: list[_Waiting[_C]] = []
        waiting = self._queue.get()
        while waiting is not None:
            batch += waiting
            if len(batch) >= MAX_BATCH:
                return batch, True
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _write(self, batch: list[_Waiting[_C]]) -> Sequence[Outcome]:
        is_retry = False
        for wait_s in (*RETRY_AFTER_S, None):
            try:
                outcomes = self._transaction(batch, is_retry=is_retry)
            except Exception as error:
                is_retry = True
                self._drop_connection()
                if not is_transient(error):
                    return self._write_singly(batch, error)
                if wait_s is None:
                    _log.error("the database cannot be written", reason=reason(error), changes=len(batch))
                    self._is_failing = True
                    return [StoreUnavailable(reason(error)) for _ in batch]
                time.sleep(wait_s)
            else:
                self._is_failing = False
                return outcomes
        raise AssertionError("unreachable")

    def _write_singly(self, batch: list[_Waiting[_C]], error: Exception) -> Sequence[Outcome]:
        """One bad change must not take the others with it."""
        if len(batch) == 1:
            _log.error("a change cannot be written", reason=reason(error), kind=type(error).__name__)
            return [StoreUnavailable(reason(error))]
        return [outcome for waiting in batch for outcome in self._write([waiting])]

    def _transaction(self, batch: list[_Waiting[_C]], *, is_retry: bool) -> Sequence[Outcome]:
        if self._connection is None:
            self._connection = self._database.writer()
        connection = self._connection
        self._database.set_durability(connection, must_last=any(waiting.must_last for waiting in batch))
        with connection.begin():
            return self._apply(connection, [waiting.change for waiting in batch], is_retry)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _report(self, batch: list[_Waiting[_C]], outcomes: Sequence[Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(_resolve, batch, outcomes)
        except RuntimeError:
            _log.warning("changes were written after the event loop had ended", changes=len(batch))


def _resolve(batch: Sequence[_Waiting[Any]], outcomes: Sequence[Outcome]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if waiting.done.cancelled():
            continue
        if outcome is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(outcome)
            waiting.done.exception()  # seen: whoever does not wait for a change does not want a warning either


def is_transient(error: Exception) -> bool:
    """Tell whether the same transaction may succeed a moment later: a lost connection, a lock, a deadlock."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.OperationalError):
        return cause.sqlite_errorname.startswith(
            ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")
        )
    return _is_transient_in_postgresql(cause)


def _is_transient_in_postgresql(cause: BaseException | None) -> bool:
    import psycopg.errors  # noqa: PLC0415  a driver that most servers do without

    return isinstance(
        cause,
        psycopg.errors.DeadlockDetected
        | psycopg.errors.SerializationFailure
        | psycopg.errors.DiskFull
        | psycopg.errors.AdminShutdown
        | psycopg.errors.CannotConnectNow,
    ) or (isinstance(cause, psycopg.OperationalError) and cause.sqlstate is None)


def reason(error: Exception) -> str:
    """Return what the database said in one line, without statements and values."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__
