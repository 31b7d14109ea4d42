"""Which servers live, and the end of requests whose server died.

A server with requests in flight lets a number grow in the database. Whoever sees such a number stand still for
`SILENCE_S` on a clock of its own, which never jumps, takes that server for dead, and enters its requests as
interrupted: not billed, their reservations and idempotency keys given back. No two machines' clocks have to agree, and
a server that was only asleep cannot do harm: it finds its requests ended, and tells their clients so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.store.database import Database
from mezzo.store.tables import idempotency_keys, open_requests, servers, usage_records

BEAT_EVERY_S = 1.0
SILENCE_S = 6.0

_NOTHING = {
    "status": "interrupted",
    "prompt_tokens": 0,
    "cached_tokens": 0,
    "image_tokens": 0,
    "completion_tokens": 0,
    "accepted_prediction_tokens": 0,
    "rejected_prediction_tokens": 0,
    "is_estimated": False,
    "latency_us": 0,
    "ttft_us": None,
    "input_amount": 0,
    "cached_input_amount": 0,
    "output_amount": 0,
    "amount": 0,
}


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life, entered in the journal: a server that cannot write there does not live."""


def write_beat(connection: Connection, server_id: str) -> None:
    """Let a server's number grow."""
    connection.execute(sa.update(servers).where(servers.c.id == server_id).values(beat=servers.c.beat + 1))


def enter_server(connection: Connection, server_id: str, now: datetime) -> None:
    """Note that a server starts."""
    connection.execute(sa.insert(servers).values(id=server_id, beat=0, started_at=now))


def note_stop(connection: Connection, server_id: str, now: datetime) -> None:
    """Note that a server stopped after everything of it was written: its engines' counts are final."""
    connection.execute(sa.update(servers).where(servers.c.id == server_id).values(stopped_at=now))


class Watch:
    """Finds dead servers by looking now and then. clock_s: in seconds, of any clock that does not go back."""

    def __init__(self, server_id: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._server_id = server_id
        self._clock_s = clock_s
        self._seen: dict[str, tuple[int, float]] = {}

    def look(self, connection: Connection) -> list[str]:
        """Return the servers that have requests in flight and have been silent for too long."""
        rows = connection.execute(
            sa.select(open_requests.c.server_id, servers.c.beat)
            .distinct()
            .select_from(open_requests.outerjoin(servers, servers.c.id == open_requests.c.server_id))
            .where(open_requests.c.server_id != self._server_id)
        ).all()
        now_s = self._clock_s()
        seen = {}
        for server_id, beat in rows:
            before = self._seen.get(server_id)
            seen[server_id] = before if before is not None and before[0] == beat else (beat, now_s)
        self._seen = seen
        return [server_id for server_id, (_, since_s) in seen.items() if now_s - since_s >= SILENCE_S]


def interrupt_requests(connection: Connection, database: Database, server_id: str) -> int:
    """Enter the end of every request that a dead server left, and return how many there were.

    Safe for several servers at once: each request is ended by whoever deletes its row.
    """
    kept = [column for column in open_requests.c if column.name not in {"server_id", "reserved"}]
    rows = connection.execute(
        sa.delete(open_requests).where(open_requests.c.server_id == server_id).returning(*kept)
    ).all()
    if rows:
        connection.execute(sa.insert(usage_records), [dict(row._mapping) | _NOTHING for row in rows])
        connection.execute(
            sa.delete(idempotency_keys).where(
                idempotency_keys.c.server_id == server_id, idempotency_keys.c.status.is_(None)
            )
        )
    return len(rows)
