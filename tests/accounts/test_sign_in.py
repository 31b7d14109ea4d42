from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from mezzo.accounts.audit import OPERATOR, list_entries
from mezzo.accounts.bootstrap import prepare
from mezzo.accounts.errors import NotAdmitted, Unacceptable
from mezzo.accounts.invitations import invite
from mezzo.accounts.sign_in import (
    Identity,
    PasswordAccount,
    admit,
    confirm_password,
    find_password_accounts,
    fold_email,
    is_invitation_open,
)
from mezzo.accounts.text import check_email
from mezzo.accounts.users import create_user, find_user, remove_user, set_password
from mezzo.store.database import Database
from mezzo.store.tables import organizations

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
ADA = Identity("https://id.example", "subject-1", "ada@example.org", True, "Ada", "Lovelace")
DOMAINS = ("example.org",)


class Accounts:
    """A database with an organisation, and what tests do to it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        made = prepare(database, operator_key="mz-" + "k" * 40, secret="s" * 43, currency="USD", now=NOW)
        self.organization_id, self.workspace_id = made.organization_id, made.workspace_id

    def make_user(self, email: str = "ada@example.org", organization_id: str = "", **options: Any) -> str:
        with self.database.write() as connection:
            return create_user(
                connection,
                organization_id=organization_id or self.organization_id,
                email=email,
                first_name="Ada",
                last_name="Lovelace",
                actor=OPERATOR,
                now=NOW,
                **options,
            ).id

    def invite(self, email: str = "ada@example.org", **options: Any) -> str:
        with self.database.write() as connection:
            _, secret = invite(
                connection,
                organization_id=self.organization_id,
                email=email,
                actor=OPERATOR,
                now=NOW,
                **options,
            )
        return secret

    def remove(self, user_id: str) -> None:
        with self.database.write() as connection:
            remove_user(
                connection, organization_id=self.organization_id, user_id=user_id, actor=OPERATOR, now=NOW
            )

    def admit(self, identity: Identity = ADA, domains: tuple[str, ...] = (), now: datetime = NOW) -> str:
        with self.database.write() as connection:
            return admit(connection, identity, allowed_domains=domains, now=now)

    def entries(self) -> list[tuple[str, str, str | None]]:
        with self.database.read() as connection:
            entries = list_entries(connection, self.organization_id, newest_first=False)
        return [(entry.event_type, entry.actor_type, entry.actor_user_id) for entry in entries[3:]]


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database)


def but(**changed: Any) -> Identity:
    """Return Ada's identity with something else."""
    return dataclasses.replace(ADA, **changed)


class TestEmail:
    @pytest.mark.parametrize("written", ["ada@example.org", " Ada@Example.ORG\t"])
    def test_is_compared_in_lower_case(self, written: str) -> None:
        assert fold_email(written) == "ada@example.org"

    @pytest.mark.parametrize(
        "written",
        [
            "",
            "ada",
            "@example.org",
            "ada@",
            "a b@example.org",
            "a\0@example.org",
            "a@b@example.org",
            "x" * 250 + "@b.example",
        ],
    )
    def test_of_nobody(self, written: str) -> None:
        assert fold_email(written) is None

    @pytest.mark.parametrize(
        "lookalike", ["mi\u212ae@example.org", "mike@bo\u017frn.example", "m\u0130ke@example.org"]
    )
    def test_letters_that_fold_into_others_pass_for_nobody(self, lookalike: str) -> None:
        assert fold_email(lookalike) is None
        with pytest.raises(Unacceptable):
            check_email(lookalike)


class TestIdentity:
    def test_opens_the_account_with_its_verified_email_and_then_itself(self, accounts: Accounts) -> None:
        user_id = accounts.make_user()
        assert accounts.admit() == user_id
        assert accounts.admit(but(email="ada@married.example", is_email_verified=False)) == user_id
        assert accounts.admit(but(email=None)) == user_id

    @pytest.mark.parametrize(
        "identity",
        [
            but(is_email_verified=False),
            but(email="invited@example.org", is_email_verified=False),
            but(email="new@example.org", is_email_verified=False),
            but(email=None),
            but(email="no address"),
        ],
        ids=str,
    )
    def test_without_a_verified_email_opens_nothing(self, accounts: Accounts, identity: Identity) -> None:
        accounts.make_user()
        accounts.invite("invited@example.org")
        with pytest.raises(NotAdmitted, match="verified"):
            accounts.admit(identity, DOMAINS)

    @pytest.mark.parametrize("other", [but(subject="subject-2"), but(issuer="https://other.example")])
    def test_of_somebody_else_with_the_same_email_is_refused(
        self, accounts: Accounts, other: Identity
    ) -> None:
        accounts.make_user()
        accounts.admit()
        with pytest.raises(NotAdmitted, match="another identity"):
            accounts.admit(other, DOMAINS)

    def test_unknown_is_refused(self, accounts: Accounts) -> None:
        for domains in ((), ("example.com",), ("org",), ("sub.example.org",)):
            with pytest.raises(NotAdmitted, match="no account"):
                accounts.admit(ADA, domains)
        with pytest.raises(NotAdmitted):
            accounts.admit(but(email="ada@sub.example.org"), DOMAINS)

    def test_joins_by_invitation(self, accounts: Accounts) -> None:
        accounts.invite(roles=("billing_manager", "member"))
        user_id = accounts.admit(but(email="Ada@Example.org"))
        with accounts.database.read() as connection:
            user = find_user(connection, accounts.organization_id, user_id)
        assert (user.email, user.first_name, user.roles) == (
            "ada@example.org",
            "Ada",
            ("billing_manager", "member"),
        )
        assert accounts.entries() == [
            ("organization.invite.send", "OTHER", None),
            ("user.create", "HUMAN", user_id),
            ("workspace.member.add", "HUMAN", user_id),
            ("organization.invite.accepted", "HUMAN", user_id),
            ("user.organization.join", "HUMAN", user_id),
        ]
        assert accounts.admit(but(email=None)) == user_id

    def test_an_invitation_that_expired_is_none(self, accounts: Accounts) -> None:
        accounts.invite()
        with pytest.raises(NotAdmitted):
            accounts.admit(now=NOW + timedelta(days=7))

    def test_joins_by_domain_as_a_member(self, accounts: Accounts) -> None:
        user_id = accounts.admit(ADA, DOMAINS)
        with accounts.database.read() as connection:
            user = find_user(connection, accounts.organization_id, user_id)
        assert user.roles == ("member",)
        assert [m.workspace_id for m in user.memberships] == [accounts.workspace_id]
        assert accounts.entries() == [
            ("user.create", "HUMAN", user_id),
            ("workspace.member.add", "HUMAN", user_id),
            ("user.organization.join", "HUMAN", user_id),
        ]
        assert accounts.admit() == user_id

    @pytest.mark.parametrize(
        "returning", [ADA, but(subject="subject-2"), but(email="ada.l@example.org")], ids=str
    )
    def test_deleted_comes_back_by_an_invitation_only(self, accounts: Accounts, returning: Identity) -> None:
        first_id = accounts.admit(ADA, DOMAINS)
        accounts.remove(first_id)
        with pytest.raises(NotAdmitted, match="no account"):
            accounts.admit(returning, DOMAINS)
        accounts.invite(str(returning.email))
        second_id = accounts.admit(returning, DOMAINS)
        assert second_id != first_id
        assert accounts.admit(returning) == second_id

    def test_links_the_account_of_another_organisation_too(self, accounts: Accounts) -> None:
        with accounts.database.write() as connection:
            connection.execute(sa.insert(organizations).values(id="other", name="Other", created_at=NOW))
        user_id = accounts.make_user(organization_id="other")
        assert accounts.admit(ADA, DOMAINS) == user_id


class TestPasswords:
    def test_accounts_of_an_address(self, accounts: Accounts) -> None:
        with accounts.database.write() as connection:
            connection.execute(sa.insert(organizations).values(id="other", name="Other", created_at=NOW))
        here = accounts.make_user(password_hash="one")
        there = accounts.make_user(organization_id="other", password_hash="two")
        accounts.make_user("bob@example.org")
        gone = accounts.make_user("eve@example.org", password_hash="three")
        accounts.remove(gone)
        with accounts.database.read() as connection:
            found = find_password_accounts(connection, "ada@example.org")
            assert {(a.user_id, a.password_hash) for a in found} == {(here, "one"), (there, "two")}
            assert find_password_accounts(connection, "bob@example.org") == []
            assert find_password_accounts(connection, "eve@example.org") == []

    def test_one_that_was_changed_since_it_was_checked_opens_nothing(self, accounts: Accounts) -> None:
        user_id = accounts.make_user(password_hash="one")
        checked = PasswordAccount(user_id, "one")
        with accounts.database.write() as connection:
            assert confirm_password(connection, checked, rehashed=None)
            set_password(
                connection,
                organization_id=accounts.organization_id,
                user_id=user_id,
                password_hash="two",
                actor=OPERATOR,
                now=NOW,
            )
            assert not confirm_password(connection, checked, rehashed=None)
        accounts.remove(user_id)
        with accounts.database.write() as connection:
            assert not confirm_password(connection, PasswordAccount(user_id, "two"), rehashed=None)

    def test_one_with_old_parameters_is_kept_anew(self, accounts: Accounts) -> None:
        user_id = accounts.make_user(password_hash="old")
        with accounts.database.write() as connection:
            assert confirm_password(connection, PasswordAccount(user_id, "old"), rehashed="new")
            assert find_password_accounts(connection, "ada@example.org") == [PasswordAccount(user_id, "new")]


def test_invitations_that_are_open(accounts: Accounts) -> None:
    secret = accounts.invite()
    with accounts.database.read() as connection:
        assert is_invitation_open(connection, secret, NOW)
        assert not is_invitation_open(connection, secret, NOW + timedelta(days=7))
        assert not is_invitation_open(connection, secret[:-1], NOW)
    accounts.admit()
    with accounts.database.read() as connection:
        assert not is_invitation_open(connection, secret, NOW)
