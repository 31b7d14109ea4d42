"""Invitations: sent, taken back, accepted once and in time."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from mezzo.accounts import invitations, workspaces
from mezzo.accounts.errors import Conflict, NotThere, Unacceptable
from mezzo.accounts.invitations import LIFETIME, accept_by_email, accept_invitation, invite
from mezzo.accounts.users import OidcIdentity, User, count_users
from mezzo.kit.ids import new_uuid
from mezzo.store.tables import audit_log
from mezzo.store.tables import invitations as table
from tests.accounts.world import NOW, Organization


def accept(organization: Organization, secret: str, *, now=NOW, password_hash: str | None = "hash") -> User:
    with organization.database.write() as connection:
        return accept_invitation(connection, secret, "Ann", "Other", password_hash, now)


def by_email(organization: Organization, email: str, *, now=NOW, organization_id: str | None = None):
    with organization.database.write() as connection:
        return accept_by_email(
            connection,
            email,
            first_name="Ann",
            last_name="Other",
            identity=OidcIdentity("https://sso.example", f"subject of {organization.id} {email.lower()}"),
            now=now,
            organization_id=organization_id,
        )


def test_the_secret_is_nowhere_in_the_database(organization: Organization) -> None:
    _, secret = organization.change(invite, email="ann@example.org")
    with organization.database.read() as connection:
        for kept in (table, audit_log):
            assert secret not in str(connection.execute(sa.select(kept)).all())


def test_who_accepts_becomes_what_the_invitation_says(organization: Organization) -> None:
    second = organization.workspace("Second")
    gone = organization.workspace("Gone")
    made, secret = organization.change(
        invite,
        email="Ann@example.org",
        roles=["organization_admin"],
        subscription_types=["CHAT"],
        workspace_ids=[second.id, gone.id, organization.workspace_id],
        language="fr",
    )
    assert (made.language, made.expires_at) == ("fr", NOW + timedelta(days=7))
    organization.change(workspaces.archive_workspace, workspace_id=gone.id)
    ann = accept(organization, secret)
    assert (ann.email, ann.roles, ann.subscription_types) == (
        "ann@example.org",
        ("organization_admin",),
        ("CHAT",),
    )
    assert (ann.first_name, ann.last_name, ann.has_password) == ("Ann", "Other", True)
    assert {m.workspace_id for m in ann.memberships} == {organization.workspace_id, second.id}
    *_, created, _, _, accepted, joined = organization.audit()
    assert [e.event_type for e in (created, accepted, joined)] == [
        "user.create",
        "organization.invite.accepted",
        "user.organization.join",
    ]
    assert {(e.actor_type, e.actor_user_id) for e in (created, accepted, joined)} == {("HUMAN", ann.id)}


def test_it_can_be_used_once(organization: Organization) -> None:
    _, secret = organization.change(invite, email="ann@example.org")
    accept(organization, secret)
    with pytest.raises(NotThere):
        accept(organization, secret)
    assert organization.read(invitations.list_invitations) == []
    assert organization.read(count_users) == 1


def test_it_expires(organization: Organization) -> None:
    made, secret = organization.change(invite, email="ann@example.org")
    for attempt in (
        lambda: accept(organization, secret, now=NOW + LIFETIME),
        lambda: accept(organization, "nobody's"),
    ):
        with pytest.raises(NotThere, match="not valid"):
            attempt()
    assert by_email(organization, "ann@example.org", now=NOW + LIFETIME) is None
    # It is still listed, so that it can be seen and taken away.
    assert organization.read(invitations.list_invitations) == [made]
    assert accept(organization, secret, now=NOW + LIFETIME - timedelta(microseconds=1)).email == made.email


def test_it_can_be_taken_back(organization: Organization, other: Organization) -> None:
    made, secret = organization.change(invite, email="ann@example.org")
    with pytest.raises(NotThere):
        other.change(invitations.revoke_invitation, invitation_id=made.id)
    organization.change(invitations.revoke_invitation, invitation_id=made.id)
    with pytest.raises(NotThere):
        organization.change(invitations.revoke_invitation, invitation_id=made.id)
    with pytest.raises(NotThere):
        accept(organization, secret)
    assert organization.events() == ["organization.invite.send", "organization.invite.revoked"]


def test_a_second_one_replaces_the_first(organization: Organization) -> None:
    _, first = organization.change(invite, email="ann@example.org")
    made, second = organization.change(invite, email="ANN@example.org")
    assert organization.read(invitations.list_invitations) == [made]
    with pytest.raises(NotThere):
        accept(organization, first)
    assert accept(organization, second)


def test_members_are_not_invited(organization: Organization) -> None:
    organization.user("ann@example.org")
    with pytest.raises(Conflict):
        organization.change(invite, email="Ann@example.org")
    with pytest.raises(Unacceptable):
        organization.change(invite, email="nobody")


def test_who_became_a_member_meanwhile_is_not_made_twice(organization: Organization) -> None:
    _, secret = organization.change(invite, email="ann@example.org")
    organization.user("ann@example.org")
    with pytest.raises(Conflict):
        accept(organization, secret)
    assert organization.read(count_users) == 1


def test_another_organisation_s_workspace_is_not_there(
    organization: Organization, other: Organization
) -> None:
    with pytest.raises(NotThere):
        organization.change(invite, email="ann@example.org", workspace_ids=[other.workspace_id])
    assert organization.read(invitations.list_invitations) == []


@pytest.fixture
def address() -> str:
    """An address that no other test's organisation has invited."""
    return f"{new_uuid()}@example.org"


class TestBySingleSignOn:
    def test_the_address_is_enough(self, organization: Organization, address: str) -> None:
        organization.change(invite, email=address)
        ann = by_email(organization, address.upper())
        assert (ann.oidc_subject, ann.has_password) == (f"subject of {organization.id} {address}", False)
        assert by_email(organization, address) is None

    def test_nobody_invited(self, organization: Organization, address: str) -> None:
        organization.change(invite, email=address)
        assert by_email(organization, "x" + address) is None

    def test_of_one_organisation_or_of_any(
        self, organization: Organization, other: Organization, address: str
    ) -> None:
        other.change(invite, email=address)
        assert by_email(organization, address, organization_id=organization.id) is None
        assert by_email(organization, address).organization_id == other.id
