"""The audit log: who changed what, when. Written in the transaction of the change, so that there is never one without
the other; the database refuses to change or delete entries.

Source of the names: the reference's admin API, `/v1/admin/audit-logs`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
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
            created_at=_own_moment(connection, organization_id, now),
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


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of the log, as it was written."""

    id: int
    created_at: datetime
    organization_id: str
    workspace_id: str | None
    actor_type: ActorType
    actor_user_id: str | None
    actor_metadata: Mapping[str, str]
    event_type: str
    event_metadata: Mapping[str, str]
    target_type: str
    target_metadata: Mapping[str, str]


def list_entries(
    connection: Connection,
    organization_id: str,
    *,
    actor_types: Collection[str] | None = None,
    event_types: Collection[str] | None = None,
    target_types: Collection[str] | None = None,
    actor_user_id: str | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
    newest_first: bool = True,
    limit: int | None = None,
) -> Sequence[AuditEntry]:
    """Return entries of an organisation; what is None does not filter. `after` and `before` exclude their moment."""
    query = sa.select(audit_log).where(audit_log.c.organization_id == organization_id)
    for column, values in (
        (audit_log.c.actor_type, actor_types),
        (audit_log.c.event_type, event_types),
        (audit_log.c.target_type, target_types),
    ):
        if values is not None:
            query = query.where(column.in_(values))
    if actor_user_id is not None:
        query = query.where(audit_log.c.actor_user_id == actor_user_id)
    if after is not None:
        query = query.where(audit_log.c.created_at > after)
    if before is not None:
        query = query.where(audit_log.c.created_at < before)
    order = (audit_log.c.created_at, audit_log.c.id)
    query = query.order_by(*(column.desc() for column in order)) if newest_first else query.order_by(*order)
    return [AuditEntry(**row._mapping) for row in connection.execute(query.limit(limit))]


def _own_moment(connection: Connection, organization_id: str, now: datetime) -> datetime:
    """Return `now`, or as soon after it that no other entry has that moment.

    Clients page by it: of two entries with one moment, one could fall between two pages. Only the next second is
    looked at, so that a clock that was set back does not make entries late for ever.
    """
    latest: datetime | None = connection.execute(
        sa.select(sa.func.max(audit_log.c.created_at)).where(
            audit_log.c.organization_id == organization_id,
            audit_log.c.created_at >= now,
            audit_log.c.created_at < now + timedelta(seconds=1),
        )
    ).scalar_one()
    return now if latest is None else latest + timedelta(microseconds=1)
