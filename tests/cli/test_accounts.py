"""`mezzo keys`, `mezzo users`, `mezzo workspaces`: what they change, print and refuse."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pexpect
import pytest
import sqlalchemy as sa
import typer

import mezzo.cli.main as cli
from mezzo.accounts.access import load_access
from mezzo.accounts.invitations import accept_invitation
from mezzo.accounts.passwords import verify_password
from mezzo.kit.secrets import hash_secret
from mezzo.store.database import Database
from mezzo.store.tables import audit_log, users
from tests.accounts.world import NOW, OPERATOR_KEY, set_up
from tests.cli.conftest import Run
from tests.databases import new_sqlite

MODEL = "mistral-medium-2505"
PASSWORD = "correct horse battery"


class Done(NamedTuple):
    code: int
    out: str
    err: str


Mezzo = Callable[..., Done]


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return new_sqlite(tmp_path)


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    set_up(database)
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def command() -> Any:
    """The whole command line, put together once: that takes half a second."""
    return typer.main.get_command(cli.app)


@pytest.fixture
def mezzo_here(
    command: Any,
    database: Database,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Mezzo:
    """Return a function that runs `mezzo ARGS` in this process, which spares a second each, and tells what came out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "app", command)
    for name, value in (
        ("MEZZO_DATABASE_URL", sqlite_url),
        ("MEZZO_HOME", str(tmp_path / "home")),
        ("COLUMNS", "200"),
        ("NO_COLOR", "1"),
    ):
        monkeypatch.setenv(name, value)

    def run(*args: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["mezzo", *args])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out = capsys.readouterr()
        return Done(int(ended.value.code or 0), out.out, out.err)

    return run


@pytest.fixture
def ok(mezzo_here: Mezzo) -> Callable[..., str]:
    """Return a function that runs a command, which must succeed, and returns what it printed."""

    def run(*args: str, stdin: str = "") -> str:
        done = mezzo_here(*args, stdin=stdin)
        assert done.code == 0, done.err
        return done.out.removesuffix("\n")

    return run


Ok = Callable[..., str]


@pytest.fixture
def ann(ok: Ok) -> str:
    """Return the id of Ann."""
    return ok("users", "create", "Ann@example.org", "--first-name", "Ann", "--last-name", "Other")


def access(database: Database, secret: str) -> Any:
    with database.read() as connection:
        return load_access(connection, hash_secret(secret))


class TestKeys:
    def test_are_made_listed_limited_and_revoked(self, ok: Ok, ann: str, database: Database) -> None:
        secret = ok(
            *("keys", "create", "--name", "ci", "--user", "ann@example.org"),
            *("--workspace", "Default workspace", "--expires", "2999-12-31", "--monthly", "12.5"),
        )
        found = access(database, secret)
        assert (found.kind, found.user_id) == ("api", ann)
        assert [limit.limit for limit in found.spend_limits] == [12_500_000_000]
        assert str(found.expires_at) == "3000-01-01 00:00:00+00:00"

        listed = {row["name"]: row for row in json.loads(ok("keys", "list", "--json"))}
        assert set(listed) == {"operator", "ci"}
        row = listed["ci"]
        assert row["id"] == found.key_id
        assert row["hidden_key"] == f"mz-…{secret[-4:]}"
        assert (row["workspace_name"], row["user_email"]) == ("Default workspace", "ann@example.org")
        assert (row["expiration_date"], row["monthly_limit"]) == ("2999-12-31", "12.50")
        table = ok("keys", "list", "--name", "CI")
        assert all(
            text in table for text in (row["id"], row["hidden_key"], "ann@example.org", "2999-12-31", "12.50")
        )
        assert secret not in table
        assert "operator" not in table

        ok("keys", "limit", row["id"].upper(), "--monthly", "0.000000001")
        assert [limit.limit for limit in access(database, secret).spend_limits] == [1]
        ok("keys", "limit", row["id"], "--none")
        assert access(database, secret).spend_limits == ()
        ok("keys", "revoke", row["id"])
        assert access(database, secret) is None
        assert ok("keys", "list").count("mz-…") == 1

    def test_admin_keys_are_of_another_kind(self, ok: Ok, database: Database) -> None:
        made = json.loads(ok("keys", "create", "--admin", "--name", "ops", "--json"))
        assert access(database, made["key"]).kind == "admin"
        (row,) = json.loads(ok("keys", "list", "--admin", "--json"))
        assert row == {name: value for name, value in made.items() if name != "key"}
        assert made["id"] not in ok("keys", "list")

    def test_who_did_it_is_the_operator(self, ok: Ok, database: Database) -> None:
        ok("keys", "create")
        with database.read() as connection:
            last = connection.execute(sa.select(audit_log).order_by(audit_log.c.id.desc()).limit(1)).one()
        assert (last.event_type, last.actor_type, last.actor_metadata) == (
            "api_key.create",
            "OTHER",
            {"name": "operator"},
        )

    @pytest.mark.parametrize(
        ("args", "code", "said"),
        [
            (("create", "--expires", "2020-01-01"), 2, "--expires: the expiration date has passed"),
            (("create", "--expires", "soon"), 2, "--expires: soon is not a day"),
            (("create", "--monthly", "-1"), 2, "--monthly: an amount is a number such as 50"),
            (("create", "--monthly", "1.0000000001"), 2, "--monthly: an amount is a number"),
            (("create", "--name", "x" * 256), 2, "name: name has at most 255 characters"),
            (("create", "--workspace", "nowhere"), 1, "Workspace nowhere not found"),
            (("create", "--user", "nobody@example.org"), 1, "User nobody@example.org not found"),
            (("create", "--admin", "--monthly", "1"), 2, "an admin key has no workspace"),
            (("revoke", "nothing"), 1, "API key nothing not found"),
            (("limit", "nothing", "--monthly", "1"), 1, "API key nothing not found"),
            (("limit", "nothing"), 2, "give --monthly AMOUNT or --none"),
            (("limit", "nothing", "--none", "--monthly", "1"), 2, "give --monthly AMOUNT or --none"),
        ],
    )
    def test_refusals(self, mezzo_here: Mezzo, args: tuple[str, ...], code: int, said: str) -> None:
        done = mezzo_here("keys", *args)
        assert (done.code, done.out) == (code, "")
        assert done.err.startswith(f"error: {said}")


class TestUsers:
    def test_are_made_listed_and_removed(self, ok: Ok, ann: str, database: Database) -> None:
        secret = ok("keys", "create", "--user", ann)
        boss = ("--role", "organization_admin", "--role", "member")
        ok("users", "create", "bo@example.org", "--first-name", "[b]Bo[/]", "--last-name", "B", *boss)
        ok("users", "invite", "cy@example.org")
        rows = {row["email"]: row for row in json.loads(ok("users", "list", "--json"))}
        assert {email: row["status"] for email, row in rows.items()} == {
            "ann@example.org": "active",
            "bo@example.org": "active",
            "cy@example.org": "invited",
        }
        assert rows["ann@example.org"]["id"] == ann
        assert rows["ann@example.org"]["roles"] == ["member"]
        assert rows["ann@example.org"]["has_password"] is False
        assert rows["bo@example.org"]["roles"] == ["organization_admin", "member"]
        table = ok("users", "list")
        assert "[b]Bo[/] B" in table
        assert ann in table
        assert "ann" not in ok("users", "list", "--email", "bo@")

        ok("users", "remove", "ANN@example.org")
        ok("users", "remove", "cy@example.org")
        assert access(database, secret) is None
        assert [row["email"] for row in json.loads(ok("users", "list", "--json"))] == ["bo@example.org"]

    def test_the_printed_secret_lets_somebody_in(self, ok: Ok, database: Database) -> None:
        workspace = ok("workspaces", "create", "Research")
        secret = ok(
            "users", "invite", "cy@example.org", "--workspace", "Research", "--role", "billing_manager"
        )
        with database.write() as connection:
            cy = accept_invitation(connection, secret, "Cy", "C", None, NOW)
        assert cy.roles == ("billing_manager",)
        assert [membership.workspace_id for membership in cy.memberships] == [workspace]

    def test_passwords_come_by_stdin(self, ok: Ok, mezzo_here: Mezzo, ann: str, database: Database) -> None:
        def kept() -> str:
            with database.read() as connection:
                return connection.execute(
                    sa.select(users.c.password_hash).where(users.c.id == ann)
                ).scalar_one()

        ok("users", "password", ann, "--password-stdin", stdin=PASSWORD + "\r\n")
        assert verify_password(PASSWORD, kept())
        before = kept()
        for stdin, args, said in (
            ("short\n", ("--password-stdin",), "password: a password has 12 to 1024 characters"),
            ("", (), "there is no terminal to ask for the password"),
        ):
            done = mezzo_here("users", "password", ann, *args, stdin=stdin)
            assert done.code == 2
            assert said in done.err
        assert kept() == before
        ok(
            *("users", "create", "bo@example.org", "--first-name", "B", "--last-name", "B"),
            "--password-stdin",
            stdin=PASSWORD,
        )
        rows = json.loads(ok("users", "list", "--email", "bo@", "--json"))
        assert rows[0]["has_password"] is True

    @pytest.mark.parametrize(
        ("args", "code", "said"),
        [
            (
                ("create", "ann@example.org", "--first-name", "A", "--last-name", "B"),
                1,
                "ann@example.org is a member",
            ),
            (("create", "nobody", "--first-name", "A", "--last-name", "B"), 2, "email: not an email address"),
            (
                ("create", "b@c.de", "--first-name", "", "--last-name", "B"),
                2,
                "first_name: first_name is empty",
            ),
            (("invite", "ann@example.org"), 1, "ann@example.org is a member"),
            (
                ("invite", "b@c.de", "--role", "owner"),
                2,
                "--role: not a role; give one of organization_admin",
            ),
            (("invite", "b@c.de", "--workspace", "nowhere"), 1, "Workspace nowhere not found"),
            (("remove", "b@c.de"), 1, "User b@c.de not found"),
            (("password", "b@c.de"), 1, "User b@c.de not found"),
        ],
    )
    def test_refusals(self, mezzo_here: Mezzo, ann: str, args: tuple[str, ...], code: int, said: str) -> None:
        done = mezzo_here("users", *args)
        assert (done.code, done.out) == (code, "")
        assert done.err.startswith(f"error: {said}")


class TestWorkspaces:
    def test_are_made_listed_and_archived(self, ok: Ok, ann: str, database: Database) -> None:
        made = ok(
            "workspaces", "create", "Research", "--admin", "ann@example.org", "--icon", "🧪", "--all-members"
        )
        secret = ok("keys", "create", "--workspace", "Research")
        assert access(database, secret).workspace_id == made
        table = ok("workspaces", "list")
        assert made in table
        assert "Research" in table
        ok("workspaces", "archive", made)
        assert access(database, secret) is None
        assert made not in ok("workspaces", "list")
        rows = {row["id"]: row for row in json.loads(ok("workspaces", "list", "--archived", "--json"))}
        assert rows[made]["archived_at"] is not None
        assert (rows[made]["num_members"], rows[made]["icon"]) == (1, "🧪")

    def test_members(self, ok: Ok, mezzo_here: Mezzo, ann: str) -> None:
        ok("users", "create", "bo@example.org", "--first-name", "B", "--last-name", "B")
        ok("workspaces", "create", "Research")
        assert json.loads(ok("workspaces", "members", "Research", "--json")) == []
        listed = ok(
            *("workspaces", "members", "Research", "--add", "ann@example.org", "--add", "bo@example.org"),
            *("--role", "dev", "--role", "billing"),
        )
        assert "dev, billing" in listed
        rows = json.loads(
            ok(
                *("workspaces", "members", "Research", "--add", ann, "--role", "workspace_admin"),
                *("--remove", "bo@example.org", "--json"),
            )
        )
        assert [(row["user_id"], row["roles"]) for row in rows] == [(ann, ["workspace_admin"])]
        done = mezzo_here("workspaces", "members", "Research", "--remove", "bo@example.org")
        assert (done.code, done.err) == (1, "error: bo@example.org: not a member\n")

    def test_limits_that_are_not_named_stay(self, ok: Ok, database: Database) -> None:
        def limit(*args: str) -> tuple[Any, Any, Any]:
            row = json.loads(ok("workspaces", "limit", "Default workspace", *args, "--json"))
            rules = {
                model: tuple(
                    rule[name] for name in ("requests_per_minute", "tokens_per_minute", "tokens_per_month")
                )
                for model, rule in row["rate_limits"].items()
            }
            return row["monthly_limit"], row["has_priority"], rules

        assert limit() == (None, False, {})
        assert limit("--monthly", "50", "--requests-per-minute", "60") == (
            "50.00",
            False,
            {"*": (60, None, None)},
        )
        assert limit("--tokens-per-month", "0", "--priority") == ("50.00", True, {"*": (60, None, 0)})
        assert limit("--model", MODEL, "--tokens-per-minute", "1000") == (
            "50.00",
            True,
            {"*": (60, None, 0), MODEL: (None, 1000, None)},
        )
        found = access(database, OPERATOR_KEY)
        assert found.has_priority
        assert [limit.limit for limit in found.spend_limits] == [50_000_000_000]
        assert found.rate_limits[MODEL].tokens_per_minute == 1000
        shown = ok("workspaces", "limit", "Default workspace")
        assert "50.00 a month, priority tier" in shown
        assert MODEL in shown
        assert limit("--model", MODEL, "--none") == ("50.00", True, {"*": (60, None, 0)})
        assert limit("--none", "--no-priority") == (None, False, {})

    @pytest.mark.parametrize(
        ("args", "code", "said"),
        [
            (("archive", "Default workspace"), 1, "the default workspace cannot be archived"),
            (("archive", "nowhere"), 1, "Workspace nowhere not found"),
            (("create", "x" * 256), 2, "name: name has at most 255 characters"),
            (("create", "R", "--icon", "abc"), 2, "icon: icon has at most 2 characters"),
            (("create", "R", "--admin", "b@c.de"), 1, "User b@c.de not found"),
            (("limit", "Default workspace", "--monthly", "a lot"), 2, "--monthly: an amount is a number"),
            (("limit", "Default workspace", "--none", "--monthly", "1"), 2, "--none takes limits away"),
            (("limit", "Default workspace", "--model", MODEL), 2, "--model is for --requests-per-minute"),
            (
                ("limit", "Default workspace", "--model", "gpt", "--tokens-per-minute", "1"),
                2,
                "--model: gpt is not in the catalog",
            ),
            (
                (
                    "limit",
                    "Default workspace",
                    "--model",
                    "mistral-medium-latest",
                    "--tokens-per-minute",
                    "1",
                ),
                2,
                "--model: mistral-medium-latest is an alias",
            ),
            (
                ("limit", "Default workspace", "--model", MODEL, "--none"),
                1,
                "Default workspace has no limits for",
            ),
            (
                ("limit", "Default workspace", "--requests-per-minute", "3000000000"),
                2,
                "--requests-per-minute: a limit is 0 to 2147483647",
            ),
            (("members", "Default workspace", "--role", "dev"), 2, "--role is for those that --add names"),
            (
                ("members", "Default workspace", "--add", "b@c.de", "--role", "M"),
                2,
                "--role: not a role; give one of workspace_admin",
            ),
        ],
    )
    def test_refusals(self, mezzo_here: Mezzo, args: tuple[str, ...], code: int, said: str) -> None:
        done = mezzo_here("workspaces", *args)
        assert (done.code, done.out) == (code, "")
        assert done.err.startswith(f"error: {said}")

    def test_of_two_with_one_name_the_id_tells(self, ok: Ok, mezzo_here: Mezzo) -> None:
        first, second = (ok("workspaces", "create", "Twin") for _ in range(2))
        done = mezzo_here("workspaces", "archive", "Twin")
        assert done.code == 1
        assert first in done.err
        assert second in done.err
        ok("workspaces", "archive", first)
        assert json.loads(ok("workspaces", "limit", "Twin", "--json"))["id"] == second


def test_before_the_first_start_there_is_what_a_first_start_makes(mezzo: Run, tmp_path: Path) -> None:
    secret = mezzo("keys", "create", "--name", "first").stdout.strip()
    database = Database(f"sqlite:///{tmp_path / 'home' / 'mezzo.db'}")
    assert access(database, secret).kind == "api"
    own_key = (tmp_path / "home" / "api-key").read_text().strip()
    assert access(database, own_key).kind == "api"
    database.dispose()
    done = mezzo("keys", "list", MEZZO_DATABASE_URL="postgresql://mezzo:pass-word@127.0.0.1:1/mezzo")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "pass-word" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_password_is_asked_for_twice_at_the_terminal(
    environment: dict[str, str], sqlite_url: str, database: Database, ann: str
) -> None:
    def type_passwords(first: str, second: str) -> tuple[int | None, str]:
        child = pexpect.spawn(
            sys.executable,
            ["-m", "mezzo", "users", "password", "ann@example.org"],
            env=environment | {"MEZZO_DATABASE_URL": sqlite_url},
            encoding="utf-8",
            timeout=30,
        )
        child.expect_exact("Password: ")
        child.sendline(first)
        child.expect_exact("Once more: ")
        child.sendline(second)
        child.expect(pexpect.EOF)
        child.close()
        return child.exitstatus, child.before

    assert type_passwords(PASSWORD, PASSWORD + "x") == (1, "\r\nerror: the two passwords differ\r\n")
    code, said = type_passwords(PASSWORD, PASSWORD)
    assert (code, said) == (0, "\r\nann@example.org has a new password.\r\n")
    with database.read() as connection:
        assert verify_password(PASSWORD, connection.execute(sa.select(users.c.password_hash)).scalar_one())


@pytest.mark.parametrize("group", ["keys", "users", "workspaces"])
def test_every_command_shows_an_example_and_describes_every_option(mezzo_here: Mezzo, group: str) -> None:
    listed = mezzo_here(group, "--help").out.split("Commands")[1]
    names = [line.split()[1] for line in listed.splitlines() if line.startswith("│ ") and line[2] != " "]
    assert len(names) >= 4
    for name in names:
        text = mezzo_here(group, name, "--help").out
        assert f"mezzo {group} {name}" in text.split("Usage:")[1].partition("\n")[2]
        for line in text.splitlines():
            if "│ --" in line:
                assert line.rstrip("│ ")[-1] in ".)", line
