"""People: made, changed, removed; and nobody sees another organisation's."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from mezzo.accounts import keys, members, users
from mezzo.accounts.errors import Conflict, NotThere, Unacceptable
from mezzo.accounts.passwords import hash_password, verify_password
from mezzo.accounts.users import OidcIdentity
from mezzo.kit.ids import new_uuid
from mezzo.store.tables import api_keys, sessions, workspace_members
from tests.accounts.world import NOW, Organization


def count(organization: Organization, table: sa.Table, user_id: str) -> int:
    with organization.database.read() as connection:
        query = sa.select(sa.func.count()).select_from(table).where(table.c.user_id == user_id)
        return connection.execute(query).scalar_one()


def test_a_user_is_in_the_default_workspace_unless_billing_is_all(organization: Organization) -> None:
    ann = organization.user("Ann@Example.org")
    assert (ann.email, ann.roles, ann.has_password, ann.oidc_subject) == (
        "ann@example.org",
        ("member",),
        False,
        None,
    )
    (membership,) = ann.memberships
    assert membership.workspace_id == organization.workspace_id
    assert (membership.is_default, membership.roles) == (True, ("workspace_contributor",))
    assert organization.user("bo@example.org", roles=["billing_manager"]).memberships == ()
    assert organization.user("cy@example.org", roles=["billing_manager", "member"]).memberships
    assert organization.events() == [
        "user.create",
        "workspace.member.add",
        "user.create",
        "user.create",
        "workspace.member.add",
    ]


def test_one_address_is_one_user(organization: Organization, other: Organization) -> None:
    organization.user("ann@example.org")
    with pytest.raises(Conflict):
        organization.user("ANN@example.org")
    assert other.user("ann@example.org").organization_id == other.id
    assert organization.read(users.count_users) == 1


def test_one_identity_is_one_user(organization: Organization) -> None:
    identity = OidcIdentity("https://sso.example", new_uuid())
    assert organization.user("ann@example.org", identity=identity).oidc_subject == identity.subject
    with pytest.raises(Conflict):
        organization.user("bo@example.org", identity=identity)
    assert organization.read(users.find_user_by_email, "bo@example.org") is None


@pytest.mark.parametrize(
    ("field", "value"), [("email", "nobody"), ("first_name", " "), ("last_name", "x" * 256)]
)
def test_what_cannot_be_kept_is_refused_by_name(organization: Organization, field: str, value: str) -> None:
    with pytest.raises(Unacceptable) as refused:
        organization.user(**{"email": "ann@example.org", field: value})
    assert refused.value.param == field
    assert organization.read(users.list_users) == []


def test_what_is_left_out_of_a_change_stays(organization: Organization) -> None:
    ann = organization.user("ann@example.org", subscription_types=["CHAT"])
    changed = organization.change(users.update_user, user_id=ann.id, roles=["organization_admin"])
    assert (changed.roles, changed.subscription_types) == (("organization_admin",), ("CHAT",))
    changed = organization.change(users.update_user, user_id=ann.id, subscription_types=[])
    assert (changed.roles, changed.subscription_types) == (("organization_admin",), ())
    assert changed == organization.change(users.update_user, user_id=ann.id, roles=["organization_admin"])
    first, second = organization.audit(event_types=["user.organization.role.update"])
    assert first.event_metadata == {"old_roles": "member", "new_roles": "organization_admin"}
    assert second.event_metadata == {"old_subscription_types": "CHAT", "new_subscription_types": ""}


class TestRemoving:
    def test_ends_keys_sessions_and_memberships(self, organization: Organization) -> None:
        ann, bo = organization.user("ann@example.org"), organization.user("bo@example.org")
        second = organization.workspace("Second", add_all_members=True)
        hers, _ = organization.key(user_id=ann.id)
        also_hers, _ = organization.key(user_id=ann.id, workspace_id=second.id)
        his, _ = organization.key(user_id=bo.id)
        with organization.database.write() as connection:
            for user in (ann, bo):
                connection.execute(
                    sa.insert(sessions).values(
                        secret_hash=new_uuid(), user_id=user.id, created_at=NOW, expires_at=NOW
                    )
                )
        before = len(organization.events())
        organization.change(users.remove_user, user_id=ann.id)

        assert [key.id for key in organization.read(keys.list_keys)] == [his.id]
        for table in (sessions, workspace_members):
            assert (count(organization, table, ann.id), count(organization, table, bo.id) > 0) == (0, True)
        assert sorted(organization.events()[before:]) == [
            "api_key.delete",
            "api_key.delete",
            "user.delete",
            "workspace.member.remove",
            "workspace.member.remove",
        ]
        assert {
            entry.target_metadata["uuid"] for entry in organization.audit(event_types=["api_key.delete"])
        } == {hers.id, also_hers.id}

    def test_leaves_the_address_free(self, organization: Organization) -> None:
        ann = organization.user("ann@example.org")
        organization.change(users.remove_user, user_id=ann.id)
        assert organization.user("ann@example.org").id != ann.id

    def test_once(self, organization: Organization) -> None:
        ann = organization.user("ann@example.org")
        organization.change(users.remove_user, user_id=ann.id)
        for work in (users.remove_user, users.update_user):
            with pytest.raises(NotThere):
                organization.change(work, user_id=ann.id)
        with pytest.raises(NotThere):
            organization.read(users.find_user, ann.id)

    def test_a_failure_halfway_undoes_all_of_it(
        self, organization: Organization, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ann = organization.user("ann@example.org")
        organization.key(user_id=ann.id)
        before = organization.events()

        def fail(*args: object, **kwargs: object) -> None:
            raise RuntimeError("in the middle")

        monkeypatch.setattr(users, "delete_member", fail)
        with pytest.raises(RuntimeError):
            organization.change(users.remove_user, user_id=ann.id)
        assert organization.events() == before
        assert len(organization.read(keys.list_keys, user_id=ann.id)) == 1

    def test_no_key_is_made_for_somebody_who_leaves_in_that_moment(self, organization: Organization) -> None:
        ann = organization.user("ann@example.org")
        is_removed, may_commit = threading.Event(), threading.Event()
        refusals: list[Exception] = []

        def remove() -> None:
            with organization.database.write() as connection:
                users.remove_user(
                    connection,
                    organization_id=organization.id,
                    user_id=ann.id,
                    actor=users.Actor("OTHER"),
                    now=NOW,
                )
                is_removed.set()
                may_commit.wait(5)

        def make_key() -> None:
            try:
                organization.key(user_id=ann.id)
            except NotThere as refusal:
                refusals.append(refusal)

        removing = threading.Thread(target=remove)
        removing.start()
        assert is_removed.wait(5)
        making = threading.Thread(target=make_key)
        making.start()
        making.join(0.2)
        assert making.is_alive(), "the key did not wait for who is leaving"
        may_commit.set()
        removing.join(5)
        making.join(5)
        assert len(refusals) == 1
        assert count(organization, api_keys, ann.id) == 0


def test_a_new_password_ends_sessions_and_is_not_in_the_log(organization: Organization) -> None:
    ann = organization.user("ann@example.org")
    with organization.database.write() as connection:
        connection.execute(
            sa.insert(sessions).values(secret_hash=new_uuid(), user_id=ann.id, created_at=NOW, expires_at=NOW)
        )
    hashed = hash_password("correct horse battery")
    organization.change(users.set_password, user_id=ann.id, password_hash=hashed)
    assert organization.read(users.find_user, ann.id).has_password
    with organization.database.read() as connection:
        kept = connection.execute(
            sa.select(users.users.c.password_hash).where(users.users.c.id == ann.id)
        ).scalar_one()
        assert verify_password("correct horse battery", kept)
        assert not verify_password("correct horse batterz", kept)
    assert count(organization, sessions, ann.id) == 0
    assert hashed not in str(organization.audit())


def test_pages_and_parts_of_addresses(organization: Organization, other: Organization) -> None:
    for number in range(5):
        organization.user(f"user{number}@example.org", now=NOW + timedelta(seconds=number))
    organization.user("100%@example.net", now=NOW + timedelta(minutes=1))
    other.user("theirs@example.org")
    page = organization.read(users.list_users, limit=2, offset=2)
    assert [user.email for user in page] == ["user2@example.org", "user3@example.org"]
    assert organization.read(users.count_users) == 6
    assert organization.read(users.count_users, email="EXAMPLE.ORG") == 5
    assert [user.email for user in organization.read(users.list_users, email="0%")] == ["100%@example.net"]


def test_another_organisation_s_user_is_not_there(organization: Organization, other: Organization) -> None:
    theirs = other.user("ann@example.org")
    for work, given in (
        (users.update_user, {"roles": ["organization_admin"]}),
        (users.remove_user, {}),
        (users.set_password, {"password_hash": "x"}),
    ):
        with pytest.raises(NotThere):
            organization.change(work, user_id=theirs.id, **given)
    for user_id in (theirs.id, "", "a\0b", "'; DROP TABLE users; --"):
        with pytest.raises(NotThere):
            organization.read(users.find_user, user_id)
    assert other.read(users.find_user, theirs.id) == theirs


class TestMembers:
    def test_are_added_all_or_none(self, organization: Organization, other: Organization) -> None:
        ann, bo = organization.user("ann@example.org"), organization.user("bo@example.org")
        theirs = other.user("cy@example.org")
        second = organization.workspace("Second", admin_user_id=ann.id)
        with pytest.raises(Conflict):
            organization.change(
                members.add_members, workspace_id=second.id, members={bo.id: None, ann.id: None}
            )
        with pytest.raises(NotThere):
            organization.change(
                members.add_members, workspace_id=second.id, members={bo.id: None, theirs.id: None}
            )
        assert [m.email for m in organization.read(members.list_members, second.id)] == [ann.email]
        added = organization.change(
            members.add_members, workspace_id=second.id, members={bo.id: ("dev", "billing")}
        )
        assert added == 1
        roles = {m.email: m.roles for m in organization.read(members.list_members, second.id)}
        assert roles == {ann.email: ("workspace_admin",), bo.email: ("dev", "billing")}

    def test_are_set_and_only_changes_are_counted(self, organization: Organization) -> None:
        ann, bo, cy = (organization.user(f"{name}@example.org") for name in ("ann", "bo", "cy"))
        second = organization.workspace("Second", admin_user_id=ann.id)
        organization.change(members.add_members, workspace_id=second.id, members={bo.id: ("dev",)})
        wanted = {ann.id: None, bo.id: ("user",), cy.id: None}
        done = organization.change(members.set_members, workspace_id=second.id, members=wanted)
        assert done == members.MembersSet(num_added=1, num_updated=1)
        again = organization.change(members.set_members, workspace_id=second.id, members=wanted)
        assert again == members.MembersSet(num_added=0, num_updated=0)
        roles = {m.user_id: m.roles for m in organization.read(members.list_members, second.id)}
        assert roles == {
            ann.id: ("workspace_admin",),
            bo.id: ("user",),
            cy.id: ("workspace_contributor",),
        }
        (change,) = organization.audit(event_types=["workspace.member.role.update"])
        assert change.event_metadata == {"old_roles": "dev", "new_roles": "user"}
        assert change.workspace_id == second.id

    def test_are_removed_and_those_who_were_none_are_told(self, organization: Organization) -> None:
        ann, bo = organization.user("ann@example.org"), organization.user("bo@example.org")
        second = organization.workspace("Second", admin_user_id=ann.id)
        absent = organization.change(
            members.remove_members, workspace_id=second.id, user_ids=[ann.id, bo.id, ann.id]
        )
        assert absent == [bo.id]
        assert organization.read(members.list_members, second.id) == []
        assert len(organization.audit(event_types=["workspace.member.remove"])) == 1

    def test_of_another_organisation_are_not_there(
        self, organization: Organization, other: Organization
    ) -> None:
        ann, theirs = organization.user("ann@example.org"), other.user("bo@example.org")
        for workspace_id, user_id in (
            (other.workspace_id, ann.id),
            (organization.workspace_id, theirs.id),
            (other.workspace_id, theirs.id),
        ):
            for work, given in (
                (members.add_members, {"members": {user_id: None}}),
                (members.set_members, {"members": {user_id: None}}),
                (members.remove_members, {"user_ids": [user_id]}),
            ):
                with pytest.raises(NotThere):
                    organization.change(work, workspace_id=workspace_id, **given)
        with pytest.raises(NotThere):
            organization.read(members.list_members, other.workspace_id)


def test_the_same_user_made_by_several_at_once_is_made_once(organization: Organization) -> None:
    outcomes: list[str] = []

    def make() -> None:
        try:
            outcomes.append(organization.user("ann@example.org").email)
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(outcomes) == ["ann@example.org", *["conflict"] * 5]
