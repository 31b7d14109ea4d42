"""The audit log: who changed what, when. Written in the transaction of the change, so that there is never one without
the other; the database refuses to change or delete entries.

Source of the names: the reference's admin API, `/v1/admin/audit-logs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.store.tables import audit_log

ActorType = Literal["HUMAN", "API_KEY", "OTHER"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change.

    type       HUMAN in a session, API_KEY for an admin key, OTHER for the operator at the machine
    user_id    the person, where there is one
    metadata   shown with the entry: never a secret
    """

    type: ActorType
    user_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


OPERATOR = Actor("OTHER", metadata={"name": "operator"})
"""Whoever may run commands on the machine: the command line, and the server's own start."""


def record(
    connection: Connection,
    actor: Actor,
    event_type: str,
    target_type: str,
    target: Mapping[str, str],
    *,
    organization_id: str,
    now: datetime,
    workspace_id: str | None = None,
    event: Mapping[str, str] | None = None,
) -> None:
    """Add an entry.

    target: names the object, e.g. `{"uuid": ..., "name": ...}`. event: what about it, e.g. old and new values.
    """
    connection.execute(
        sa.insert(audit_log).values(
            created_at=now,
            organization_id=organization_id,
            workspace_id=workspace_id,
            actor_type=actor.type,
            actor_user_id=actor.user_id,
            actor_metadata=dict(actor.metadata),
            event_type=event_type,
            event_metadata=dict(event or {}),
            target_type=target_type,
            target_metadata=dict(target),
        )
    )
