from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from mezzo.accounts import sessions
from mezzo.accounts.audit import OPERATOR
from mezzo.accounts.bootstrap import prepare
from mezzo.accounts.sessions import SessionUser
from mezzo.accounts.users import User, create_user, remove_user, set_password
from mezzo.store.database import Database
from mezzo.store.tables import sessions as table

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
LIFETIME = timedelta(hours=12)


@pytest.fixture
def user(database: Database) -> User:
    made = prepare(database, operator_key="mz-" + "k" * 40, secret="s" * 43, currency="USD", now=NOW)
    with database.write() as connection:
        return create_user(
            connection,
            organization_id=made.organization_id,
            email="ada@example.org",
            first_name="Ada",
            last_name="Lovelace",
            roles=("organization_admin",),
            actor=OPERATOR,
            now=NOW,
        )


def begin(database: Database, user: User, now: datetime = NOW) -> str:
    with database.write() as connection:
        return sessions.create_session(connection, user.id, now=now, lifetime=LIFETIME)


def find(database: Database, secret: str, now: datetime = NOW) -> SessionUser | None:
    with database.read() as connection:
        return sessions.find_session(connection, secret, now)


def test_tells_who_it_is(database: Database, user: User) -> None:
    found = find(database, begin(database, user))
    assert found is not None
    assert (found.id, found.email, found.roles) == (user.id, "ada@example.org", ("organization_admin",))
    assert found.organization_name == "Default organization"
    assert [(m.workspace_name, m.is_default) for m in found.memberships] == [("Default workspace", True)]
    assert found.expires_at == NOW + LIFETIME


def test_the_secret_is_not_kept(database: Database, user: User) -> None:
    secret = begin(database, user)
    assert len(secret) == 43
    with database.read() as connection:
        (row,) = connection.execute(sa.select(table))
    assert secret not in repr(row)
    assert find(database, row.secret_hash) is None


def test_ends_at_its_time_and_is_then_forgotten(database: Database, user: User) -> None:
    secret = begin(database, user)
    assert find(database, secret, NOW + LIFETIME - timedelta(microseconds=1))
    assert find(database, secret, NOW + LIFETIME) is None
    begin(database, user, NOW + LIFETIME)
    with database.read() as connection:
        assert len(connection.execute(sa.select(table)).all()) == 1


def test_ends_when_told(database: Database, user: User) -> None:
    first, second = begin(database, user), begin(database, user)
    with database.write() as connection:
        sessions.end_session(connection, first)
    assert find(database, first) is None
    assert find(database, second)


def test_ends_with_the_user(database: Database, user: User) -> None:
    secret = begin(database, user)
    with database.write() as connection:
        remove_user(
            connection, organization_id=user.organization_id, user_id=user.id, actor=OPERATOR, now=NOW
        )
    assert find(database, secret) is None


def test_a_new_password_ends_all_but_the_one_it_was_set_in(database: Database, user: User) -> None:
    here, elsewhere = begin(database, user), begin(database, user)
    with database.write() as connection:
        set_password(
            connection,
            organization_id=user.organization_id,
            user_id=user.id,
            password_hash="a hash",
            actor=OPERATOR,
            now=NOW,
            keep_session=here,
        )
    assert find(database, elsewhere) is None
    assert find(database, here)
