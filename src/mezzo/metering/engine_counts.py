"""What engine processes count themselves, kept beside the records so that the two can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.backends.base import EngineCounts
from mezzo.store.database import insert_into
from mezzo.store.prepared import Prepared
from mezzo.store.tables import engine_runs


def write_counts(connection: Connection, counts: Sequence[EngineCounts], *, server_id: str) -> None:
    """Write the counts of engine processes, each named once."""
    if not counts:
        return
    _WRITE.run(
        connection,
        [
            {
                "id": count.run_id,
                "server_id": server_id,
                "weights": count.weights,
                "started_at": count.started_at,
                "num_requests": count.num_requests,
                "prompt_tokens": count.prompt_tokens,
                "completion_tokens": count.completion_tokens,
            }
            for count in counts
        ],
    )


def _write(dialect: str) -> sa.Insert:
    insert = insert_into(engine_runs, dialect)
    counts = ("num_requests", "prompt_tokens", "completion_tokens")
    return insert.on_conflict_do_update(
        index_elements=["id"], set_={name: insert.excluded[name] for name in counts}
    )


_WRITE = Prepared(_write, engine_runs.c.keys())
