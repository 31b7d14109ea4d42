from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from mezzo.accounts import keys
from mezzo.accounts.access import AccessCache
from mezzo.accounts.audit import OPERATOR
from mezzo.accounts.bootstrap import Installation, prepare
from mezzo.accounts.errors import NotThere, Unacceptable
from mezzo.kit.secrets import ADMIN_KEY_PREFIX, KEY_PREFIX
from mezzo.store.database import Database, DatabaseUnavailable
from mezzo.store.tables import api_keys, audit_log, organizations, workspaces

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
OPERATOR_KEY = "mz-operator-key-0123456789"


def start(database: Database, **changed: str) -> Installation:
    given = {"operator_key": OPERATOR_KEY, "secret": "s" * 43, "currency": "USD"} | changed
    return prepare(database, now=NOW, **given)


def events(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.scalars(sa.select(audit_log.c.event_type).order_by(audit_log.c.id)))


class TestFirstStart:
    def test_makes_an_organisation_a_workspace_and_a_key(self, database: Database) -> None:
        made = start(database)

        async def find() -> object:
            return await AccessCache(database, lambda: NOW).find(OPERATOR_KEY)

        access = asyncio.run(find())
        assert access.organization_id == made.organization_id
        assert access.workspace_id == made.workspace_id
        assert events(database) == ["organization.create", "workspace.create", "api_key.create"]

    def test_a_later_start_changes_nothing(self, database: Database) -> None:
        first = start(database)
        assert start(database) == first
        assert len(events(database)) == 3

    def test_a_revoked_operator_key_stays_revoked(self, database: Database) -> None:
        made = start(database)
        with database.write() as connection:
            (key,) = keys.list_keys(connection, made.organization_id)
            keys.revoke_key(
                connection, organization_id=made.organization_id, key_id=key.id, actor=OPERATOR, now=NOW
            )
        assert not start(database).is_key_good

    @pytest.mark.parametrize("changed", [{"secret": "t" * 43}, {"currency": "EUR"}])
    def test_another_installation_s_database_is_refused(
        self, database: Database, changed: dict[str, str]
    ) -> None:
        start(database)
        with pytest.raises(DatabaseUnavailable):
            start(database, **changed)


class TestKeys:
    def test_the_secret_is_shown_once_and_not_kept(self, database: Database) -> None:
        made = start(database)
        with database.write() as connection:
            key, secret = keys.create_key(
                connection,
                organization_id=made.organization_id,
                workspace_id=made.workspace_id,
                user_id=None,
                name="ci",
                actor=OPERATOR,
                now=NOW,
            )
        assert secret.startswith(KEY_PREFIX)
        assert key.hidden == f"mz-…{secret[-4:]}"
        with database.read() as connection:
            for table in (api_keys, audit_log):
                rows = str(connection.execute(sa.select(table)).all())
                assert secret not in rows
                assert secret[3:-4] not in rows

    def test_an_admin_key_belongs_to_no_workspace(self, database: Database) -> None:
        made = start(database)
        with database.write() as connection:
            key, secret = keys.create_admin_key(
                connection, organization_id=made.organization_id, name="ops", actor=OPERATOR, now=NOW
            )
        assert secret.startswith(ADMIN_KEY_PREFIX)
        assert key.workspace_id is None

    def test_another_organisation_s_workspace_is_not_there(self, database: Database) -> None:
        made = start(database)
        with database.write() as connection:
            connection.execute(sa.insert(organizations).values(id="other", name="Other", created_at=NOW))
        with database.write() as connection, pytest.raises(NotThere):
            keys.create_key(
                connection,
                organization_id="other",
                workspace_id=made.workspace_id,
                user_id=None,
                actor=OPERATOR,
                now=NOW,
            )

    def test_a_day_that_has_passed_is_refused(self) -> None:
        assert keys.end_of(date(2026, 9, 1), NOW) == datetime(2026, 9, 2, tzinfo=UTC)
        with pytest.raises(Unacceptable) as refused:
            keys.end_of(date(2026, 8, 31), NOW)
        assert refused.value.param == "expiration"

    def test_a_part_of_the_name_or_the_end_of_the_key_finds_it(self, database: Database) -> None:
        made = start(database)
        with database.write() as connection:
            for name in ("100%", "100 times"):
                keys.create_key(
                    connection,
                    organization_id=made.organization_id,
                    workspace_id=made.workspace_id,
                    user_id=None,
                    name=name,
                    actor=OPERATOR,
                    now=NOW,
                )
            found = keys.list_keys(connection, made.organization_id, name="0%")
            assert [key.name for key in found] == ["100%"]
            found = keys.list_keys(connection, made.organization_id, name=OPERATOR_KEY[-4:])
            assert [key.name for key in found] == ["operator"]


class TestAccess:
    async def test_a_key_expires_when_the_clock_says_so(self, database: Database) -> None:
        made = start(database)
        with database.write() as connection:
            _, secret = keys.create_key(
                connection,
                organization_id=made.organization_id,
                workspace_id=made.workspace_id,
                user_id=None,
                expiration=date(2026, 9, 1),
                actor=OPERATOR,
                now=NOW,
            )
        time = NOW
        cache = AccessCache(database, lambda: time)
        assert await cache.find(secret) is not None
        time = datetime(2026, 9, 2, tzinfo=UTC) - timedelta(microseconds=1)
        assert await cache.find(secret) is not None
        time = datetime(2026, 9, 2, tzinfo=UTC)
        assert await cache.find(secret) is None

    async def test_a_revoked_key_is_refused_within_a_second_by_servers_that_were_not_told(
        self, database: Database
    ) -> None:
        made = start(database)
        cache = AccessCache(database, lambda: NOW)
        assert await cache.find(OPERATOR_KEY) is not None
        with database.write() as connection:
            (key,) = keys.list_keys(connection, made.organization_id)
            keys.revoke_key(
                connection, organization_id=made.organization_id, key_id=key.id, actor=OPERATOR, now=NOW
            )
        await asyncio.sleep(0.9)
        assert await cache.find(OPERATOR_KEY) is None

    async def test_the_server_that_changed_something_forgets_at_once(self, database: Database) -> None:
        made = start(database)
        cache = AccessCache(database, lambda: NOW)
        assert await cache.find(OPERATOR_KEY) is not None
        with database.write() as connection:
            connection.execute(
                sa.update(workspaces).where(workspaces.c.id == made.workspace_id).values(archived_at=NOW)
            )
        assert await cache.find(OPERATOR_KEY) is not None
        cache.forget()
        assert await cache.find(OPERATOR_KEY) is None

    async def test_a_key_nobody_has(self, database: Database) -> None:
        start(database)
        assert await AccessCache(database, lambda: NOW).find("mz-nobody") is None


def test_the_audit_log_cannot_be_rewritten(database: Database) -> None:
    start(database)
    for statement in (sa.update(audit_log).values(event_type="x"), sa.delete(audit_log)):
        with pytest.raises(DBAPIError, match="append-only"), database.write() as connection:
            connection.execute(statement)
    assert len(events(database)) == 3
