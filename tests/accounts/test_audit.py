"""Reading the audit log, page by page."""

from __future__ import annotations

from datetime import datetime, timedelta

from mezzo.accounts import audit
from mezzo.accounts.audit import OPERATOR, Actor, AuditEntry
from tests.accounts.world import NOW, Organization


def record(
    organization: Organization, event_type: str, *, now: datetime = NOW, actor: Actor = OPERATOR
) -> None:
    with organization.database.write() as connection:
        audit.record(
            connection, actor, event_type, "USER", {"uuid": "u"}, organization_id=organization.id, now=now
        )


def test_pages_by_time_hold_every_entry_once(organization: Organization) -> None:
    """Also those of one transaction, which has one time."""
    for number in range(3):
        organization.user(f"user{number}@example.org")
    record(organization, "x", now=NOW + timedelta(microseconds=2))
    whole = organization.audit()
    assert len(whole) == 3 * 2 + 1
    assert len({entry.created_at for entry in whole}) == len(whole)

    pages: list[AuditEntry] = []
    before = None
    while page := organization.read(audit.list_entries, before=before, limit=4):
        pages += page
        before = page[-1].created_at
    assert pages == whole[::-1]
    forward: list[AuditEntry] = []
    after = None
    while page := organization.read(audit.list_entries, after=after, limit=1, newest_first=False):
        forward += page
        after = page[-1].created_at
    assert forward == whole


def test_a_clock_that_was_set_back_does_not_make_entries_late(organization: Organization) -> None:
    record(organization, "late", now=NOW + timedelta(hours=1))
    record(organization, "early", now=NOW + timedelta(minutes=1))
    assert [e.created_at for e in organization.audit(event_types=["early"])] == [NOW + timedelta(minutes=1)]


def test_filters(organization: Organization, other: Organization) -> None:
    ann = Actor("HUMAN", "ann", {"email": "ann@example.org"})
    record(organization, "a", actor=ann)
    record(organization, "b", actor=Actor("API_KEY"))
    record(other, "c", actor=ann)

    def events(**filters: object) -> list[str]:
        return [entry.event_type for entry in organization.audit(**filters)]

    assert events(actor_types=["HUMAN", "API_KEY"]) == ["a", "b"]
    assert events(actor_user_id="ann") == ["a"]
    assert events(event_types=["b", "c"]) == ["b"]
    organization.workspace("Second")
    assert events(target_types=["WORKSPACE"]) == ["workspace.create"]
    assert events(event_types=[]) == []
    (entry,) = organization.audit(event_types=["a"])
    assert (entry.actor_type, entry.actor_metadata, entry.target_metadata, entry.event_metadata) == (
        "HUMAN",
        {"email": "ann@example.org"},
        {"uuid": "u"},
        {},
    )
