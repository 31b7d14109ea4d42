"""Whose key opens the admin API, what is refused, and that the documentation works."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import sqlalchemy as sa

from mezzo.accounts import keys, workspaces
from mezzo.accounts.errors import (
    AccountsError,
    Conflict,
    NotAdmitted,
    NotThere,
    TooBusy,
    TooManyAttempts,
    Unacceptable,
)
from mezzo.kit.secrets import mask
from mezzo.server.errors import accounts_error
from mezzo.store.database import Database
from mezzo.store.tables import api_keys
from tests.accounts.world import NOW, Organization, make_organization, set_up
from tests.databases import new_sqlite
from tests.server.admin.admin_server import AdminClient, AdminServer, operation_of
from tests.server.admin.calls import (
    NOBODY,
    Call,
    all_calls,
    furnish,
)
from tests.server.live import UUID7, wait_until


class TestKeys:
    """Who may call at all."""

    def test_the_list_of_calls_is_complete(self, server: AdminServer) -> None:
        described = {
            (method.upper(), path)
            for path, operations in server.description["paths"].items()
            for method in operations
        }
        things = SimpleNamespace(user="u", workspace="w", key="k", secret="s", invite="i")
        called = {
            operation_of(server.description, method, path)["operationId"]
            for method, path, _ in all_calls(things)
        }
        assert len(described) == len(called) == len(all_calls(things)) == 24

    def test_every_endpoint_takes_an_admin_key_and_nothing_else(
        self, server: AdminServer, organization: Organization, admin: AdminClient
    ) -> None:
        things = furnish(organization)
        before = organization.audit()
        _, ended = organization.admin_key()
        with organization.database.write() as connection:
            connection.execute(
                sa.update(api_keys)
                .where(api_keys.c.hidden == mask(ended), api_keys.c.kind == "admin")
                .values(expires_at=NOW)
            )
        for key, status, detail in (
            (None, 401, "Unauthorized"),
            ("", 401, "Unauthorized"),
            ("mza-nobody", 401, "Invalid API Key"),
            (ended, 401, "Invalid API Key"),
            (things.secret, 403, "This endpoint needs an admin API key"),
        ):
            client = AdminClient(server, key)
            for method, path, body in all_calls(things):
                assert client.refused(status, method, path, body) == detail
        assert len(organization.audit()) == len(before) + 1  # the key that ended
        archive = ("DELETE", f"/workspaces/{things.workspace}")
        for method, path, body in all_calls(things):
            response = admin.call(method, path, body)
            wanted = 204 if (method, path) == archive else 200
            assert response.status_code == wanted, (method, path, response.text)
            assert UUID7.fullmatch(response.headers["mistral-correlation-id"])

    def test_either_header_will_do_and_two_keys_will_not(
        self, server: AdminServer, organization: Organization
    ) -> None:
        _, first = organization.admin_key()
        _, second = organization.admin_key()

        def status(*headers: tuple[str, str]) -> int:
            return server.http.get("/roles", headers=list(headers)).status_code

        assert status(("X-Api-Key", first)) == 200
        assert status(("Authorization", f"bearer {first}")) == 200
        assert status(("x-api-key", first), ("authorization", f"Bearer {first}")) == 200
        assert status(("x-api-key", first), ("authorization", f"Bearer {second}")) == 401
        assert status(("x-api-key", first), ("x-api-key", second)) == 401
        assert status(("x-api-key", first), ("authorization", f"Basic {first}")) == 401
        assert status(("authorization", first)) == 401

    def test_a_revoked_admin_key_is_out(self, organization: Organization, admin: AdminClient) -> None:
        (key,) = organization.read(keys.list_keys, kind="admin")
        admin.get("/roles")
        organization.change(keys.revoke_key, key_id=key.id)

        wait_until(lambda: admin.call("GET", "/roles").status_code == 401, timeout_s=1)

    def test_keys_come_before_bodies(self, server: AdminServer) -> None:
        AdminClient(server, None).refused(401, "POST", "/users", content=b"{")

    def test_what_is_not_had_is_no_route(self, server: AdminServer, admin: AdminClient) -> None:
        for method, path in (
            ("POST", "/scim/sync"),
            ("GET", "/scim/sync/1"),
            ("GET", "/analytics/vibe/users"),
            ("GET", "/user-groups"),
            ("PUT", "/users"),
            ("GET", "/users/"),
            ("GET", ""),
        ):
            response = admin.send(method, path)
            assert response.status_code == 404, path
            assert set(response.json()) == {"message", "request_id"}


def test_every_refusal_of_accounts_has_an_answer() -> None:
    statuses = {
        NotThere("no"): 404,
        Conflict("no"): 409,
        NotAdmitted("no"): 403,
        TooManyAttempts(60): 429,
        TooBusy(): 503,
        Unacceptable("no", param="x"): 422,
    }
    assert {type(error) for error in statuses} == set(AccountsError.__subclasses__())
    for error, status in statuses.items():
        assert accounts_error(error).status == status


@pytest.mark.parametrize("path", ["/users", "/workspaces"])
@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=one", "page"),
        ("page=1000000001", "page"),
        ("page_size=0", "page_size"),
        ("page_size=101", "page_size"),
        ("per_page=5", "per_page"),
    ],
)
def test_pages_have_bounds(admin: AdminClient, path: str, query: str, name: str) -> None:
    items = admin.refused(422, "GET", path, params=httpx.QueryParams(query))
    assert [item["loc"] for item in items] == [["query", name]]
    assert admin.get(path, page=1_000_000_000, page_size=100)["page_size"] == 100


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/users", "email=%00"),
        ("/workspaces", "search=%00"),
        ("/workspaces", "is_archived=maybe"),
        ("/api-keys", "name=%00"),
        ("/api-keys", "limit=1001"),
        ("/api-keys", "offset=-1"),
        ("/api-keys", "offset=9223372036854775808"),
    ],
)
def test_other_queries_have_bounds(admin: AdminClient, path: str, query: str) -> None:
    (item,) = admin.refused(422, "GET", path, params=httpx.QueryParams(query))
    assert item["loc"] == ["query", query.partition("=")[0]]


def test_everything_of_another_organisation_is_404(
    organization: Organization, other: Organization, admin: AdminClient
) -> None:
    own, theirs = furnish(organization), furnish(other)
    before = other.audit()
    members = {"members": [{"user_uuid": own.user}]}
    their_members = {"members": [{"user_uuid": theirs.user}]}
    calls: list[Call] = [
        ("GET", f"/users/{theirs.user}", None),
        ("PATCH", f"/users/{theirs.user}", {"role_names": ["member"]}),
        ("DELETE", f"/users/{theirs.user}", None),
        ("DELETE", f"/users-invite/{theirs.invite}", None),
        ("POST", "/users-invite", {"email": "x@example.org", "workspace_uuids": [theirs.workspace]}),
        ("POST", "/workspaces", {"name": "W", "admin_user_id": theirs.user}),
        ("PATCH", f"/workspaces/{theirs.workspace}", {"name": "Mine"}),
        ("DELETE", f"/workspaces/{theirs.workspace}", None),
        ("POST", f"/workspaces/{theirs.workspace}/add-users", members),
        ("PATCH", f"/workspaces/{theirs.workspace}/users", members),
        ("DELETE", f"/workspaces/{theirs.workspace}/remove-users", members),
        ("POST", f"/workspaces/{own.workspace}/add-users", their_members),
        ("PATCH", f"/workspaces/{own.workspace}/users", their_members),
        ("DELETE", f"/workspaces/{own.workspace}/remove-users", their_members),
        ("POST", "/api-keys", {"workspace_uuid": theirs.workspace, "user_id": own.user}),
        ("POST", "/api-keys", {"workspace_uuid": own.workspace, "user_id": theirs.user}),
        ("DELETE", f"/api-keys/{theirs.key}", None),
    ]
    foreign = re.compile("|".join((theirs.user, theirs.workspace, theirs.invite, theirs.key)))
    for method, path, body in calls:
        detail = admin.refused(404, method, path, body)
        # The same words as for an id that nobody ever had.
        nobody_s = json.loads(foreign.sub(NOBODY, json.dumps([path, body])))
        assert admin.refused(404, method, *nobody_s) == foreign.sub(NOBODY, detail)
    assert other.audit() == before
    lists = str(
        [admin.get(path) for path in ("/users", "/users-invite", "/workspaces", "/api-keys", "/audit-logs")]
    )
    for known in (theirs.user, theirs.workspace, theirs.invite, theirs.key, other.id, other.workspace_id):
        assert known not in lists
    assert organization.read(workspaces.find_workspace, own.workspace).name == "Second"


@pytest.mark.parametrize("path", ["/users/{}", "/workspaces/{}", "/api-keys/{}", "/users-invite/{}"])
def test_ids_that_are_none_are_404(admin: AdminClient, path: str) -> None:
    for bad in ("%00", "x", "a" * 5000, "%27%3B%20DROP%20TABLE%20users%3B", "é"):
        response = admin.send("DELETE", path.format(bad))
        assert response.status_code == 404
        assert set(response.json()) == {"detail"}
        assert len(response.content) < 2000


def test_a_large_body_is_refused(admin: AdminClient) -> None:
    assert admin.send("POST", "/users", content=b" " * 3_000_000).status_code == 413


def test_the_lines_of_the_documentation_work(
    server: AdminServer, organization: Organization, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "admin.md").read_text("utf-8")
    settings, *blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    assert "ADMIN_API_KEY=" in settings
    things = furnish(organization)
    (tmp_path / ".curlrc").write_text('fail-with-body\nsilent\nshow-error\nwrite-out = "\\n"\n')
    environment = {
        "PATH": os.environ["PATH"],
        "CURL_HOME": str(tmp_path),
        "URL": server.url + "/v1/admin",
        "ADMIN_API_KEY": organization.admin_key()[1],
        "USER_ID": things.user,
        "WORKSPACE_ID": things.workspace,
        "KEY_ID": things.key,
        "INVITE_ID": things.invite,
    }
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(blocks)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("+ curl ") == "\n".join(blocks).count("curl ")
    assert {"user.create", "workspace.create", "api_key.delete", "workspace.delete"} <= set(
        organization.events()
    )


def test_a_database_that_fails_is_503(tmp_path: Path) -> None:
    database = Database(new_sqlite(tmp_path))
    set_up(database)
    running = AdminServer(database)
    running.start()
    try:
        admin = AdminClient(running, make_organization(database).admin_key()[1])
        admin.get("/users")
        for table in ("users", "api_keys"):
            with database.write() as connection:
                connection.execute(sa.text(f"ALTER TABLE {table} RENAME TO gone_{table}"))
            running.access.forget()
            for method, path, body in (
                ("GET", "/users", None),
                ("POST", "/users-invite", {"email": "a@b.co"}),
            ):
                response = admin.call(method, path, body)
                assert response.status_code == 503
                assert response.json()["message"] == "Service unavailable."
                assert "retry-after" in response.headers
    finally:
        running.stop()
        database.dispose()
