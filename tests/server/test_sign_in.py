"""/auth/*: passwords, sessions, invitations, and what keeps other sites and guesses out."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from fastapi import FastAPI
from structlog.testing import capture_logs

from mezzo.accounts import passwords
from mezzo.accounts.attempts import MAX_BY_EMAIL, WINDOW_S
from mezzo.accounts.audit import OPERATOR
from mezzo.accounts.bootstrap import prepare
from mezzo.accounts.sign_in import Identity
from mezzo.accounts.users import remove_user
from mezzo.server.cookies import SESSION_COOKIE
from mezzo.server.openapi import describe
from mezzo.server.routes.auth import auth_routes
from mezzo.server.routes.auth.single_sign_on import CALLBACK_PATH
from mezzo.server.sign_in import SignIn
from mezzo.settings import Settings
from mezzo.store.database import Database
from mezzo.store.tables import sessions, users
from tests.server.auth_server import NO_TLS, NOW, PASSWORD, AuthServer, auth_server
from tests.server.live import assert_error

WRONG = "The email or the password is wrong"
NEW_PASSWORD = "another horse and battery"


@pytest.fixture(autouse=True)
def _quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash with a fraction of the work, some hundred times; the true work is for tests/accounts/test_passwords.py."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=4096, parallelism=1))


@pytest.fixture
def server(sqlite_url: str) -> Iterator[AuthServer]:
    database = Database(sqlite_url)
    with auth_server(database) as server:
        yield server
    database.dispose()


@pytest.fixture
def browser(server: AuthServer) -> Iterator[httpx.Client]:
    with server.browser() as browser:
        yield browser


def sign_in(
    browser: httpx.Client, email: str = "ada@example.org", password: str = PASSWORD
) -> httpx.Response:
    return browser.post("/auth/sign-in", json={"email": email, "password": password})


def is_signed_in(browser: httpx.Client) -> bool:
    return browser.get("/auth/session").status_code == 200


class TestSession:
    def test_begins_with_a_password_and_tells_who_it_is(
        self, server: AuthServer, browser: httpx.Client
    ) -> None:
        user = server.make_user("ada@example.org", roles=("organization_admin", "member"))
        response = sign_in(browser, " ADA@example.org ")
        assert response.status_code == 200
        assert response.json() == {
            "user": {
                "id": user.id,
                "email": "ada@example.org",
                "first_name": "Ada",
                "last_name": "Lovelace",
                "organization": {"id": server.organization_id, "name": "Default organization"},
                "roles": ["organization_admin", "member"],
                "workspaces": [
                    {
                        "id": server.workspace_id,
                        "name": "Default workspace",
                        "is_default": True,
                        "roles": ["workspace_contributor"],
                    }
                ],
            },
            "expires_at": "2026-09-02T00:00:00Z",
        }
        assert response.headers["cache-control"] == "no-store"
        assert browser.get("/auth/session").json() == response.json()

    def test_is_a_cookie_that_scripts_and_other_sites_do_not_get(
        self, server: AuthServer, browser: httpx.Client
    ) -> None:
        server.make_user("ada@example.org")
        (morsel,) = SimpleCookie(sign_in(browser).headers["set-cookie"]).values()
        assert morsel.key == SESSION_COOKIE
        assert len(morsel.value) == 43
        assert morsel["httponly"]
        assert morsel["samesite"] == "lax"
        assert morsel["path"] == "/"
        assert morsel["max-age"] == str(12 * 3600)
        assert not morsel["secure"]  # this server is reached by http

    def test_is_sent_by_https_only_where_browsers_come_by_https(self, sqlite_url: str) -> None:
        with auth_server(Database(sqlite_url), public_url="https://mezzo.example", session_hours=1) as server:
            server.make_user("ada@example.org")
            with server.browser() as browser:
                (morsel,) = SimpleCookie(sign_in(browser).headers["set-cookie"]).values()
        assert morsel["secure"]
        assert morsel["max-age"] == "3600"

    @pytest.mark.parametrize("cookie", [None, "", "x" * 43, "é", "a; b"])
    def test_without_one_nobody_is_signed_in(self, server: AuthServer, cookie: str | None) -> None:
        headers = {} if cookie is None else {"cookie": f"{SESSION_COOKIE}={cookie}".encode()}
        response = httpx.get(server.url + "/auth/session", headers=headers, trust_env=False, verify=NO_TLS)
        assert_error(response, 401, detail="Not signed in")

    def test_ends_by_signing_out(self, server: AuthServer, browser: httpx.Client) -> None:
        server.make_user("ada@example.org")
        sign_in(browser)
        secret = browser.cookies[SESSION_COOKIE]
        response = browser.post("/auth/sign-out", json={})
        assert response.status_code == 204
        assert SESSION_COOKIE not in browser.cookies
        browser.cookies.set(SESSION_COOKIE, secret)
        assert not is_signed_in(browser)
        assert browser.post("/auth/sign-out", json={}).status_code == 204

    def test_ends_at_its_time_however_much_it_is_used(
        self, server: AuthServer, browser: httpx.Client
    ) -> None:
        server.make_user("ada@example.org")
        sign_in(browser)
        server.clock.advance(hours=11.99)
        assert is_signed_in(browser)
        server.clock.advance(hours=0.01)
        assert not is_signed_in(browser)

    def test_ends_when_the_user_is_deleted(self, server: AuthServer, browser: httpx.Client) -> None:
        user = server.make_user("ada@example.org")
        sign_in(browser)
        with server.database.write() as connection:
            remove_user(
                connection,
                organization_id=server.organization_id,
                user_id=user.id,
                actor=OPERATOR,
                now=NOW,
            )
        assert not is_signed_in(browser)
        assert_error(sign_in(browser), 401, detail=WRONG)

    def test_is_another_one_after_signing_in_again(self, server: AuthServer, browser: httpx.Client) -> None:
        server.make_user("ada@example.org")
        sign_in(browser)
        first = browser.cookies[SESSION_COOKIE]
        sign_in(browser)
        assert browser.cookies[SESSION_COOKIE] != first
        with server.database.read() as connection:
            assert len(connection.execute(sa.select(sessions)).all()) == 1


class TestPassword:
    def test_everything_wrong_is_told_alike(self, server: AuthServer, browser: httpx.Client) -> None:
        server.make_user("ada@example.org")
        server.make_user("sso@example.org", password=None)
        answers = [
            sign_in(browser, email, password)
            for email, password in (
                ("ada@example.org", PASSWORD + "!"),
                ("ada@example.org", ""),
                ("sso@example.org", PASSWORD),
                ("bob@example.org", PASSWORD),
                ("not an address\0", PASSWORD),
                ("", "x" * 10_000),
            )
        ]
        assert {answer.status_code for answer in answers} == {401}
        assert {answer.text for answer in answers} == {'{"detail":"' + WRONG + '"}'}
        assert not any("set-cookie" in answer.headers for answer in answers)

    def test_of_old_parameters_is_kept_anew(self, server: AuthServer, browser: httpx.Client) -> None:
        server.make_user("ada@example.org", password=None)
        outdated = PasswordHasher(time_cost=1, memory_cost=8192).hash(PASSWORD)
        with server.database.write() as connection:
            connection.execute(sa.update(users).values(password_hash=outdated))
        assert sign_in(browser).status_code == 200
        with server.database.read() as connection:
            kept = connection.execute(sa.select(users.c.password_hash)).scalar_one()
        assert kept != outdated
        assert passwords.verify_password(PASSWORD, kept)
        assert not passwords.needs_rehash(kept)
        assert sign_in(browser).status_code == 200

    def test_change_ends_the_other_sessions(self, server: AuthServer, browser: httpx.Client) -> None:
        server.make_user("ada@example.org")
        with server.browser() as elsewhere:
            for each in (browser, elsewhere):
                sign_in(each)
            response = browser.post("/auth/password", json={"old": PASSWORD, "new": NEW_PASSWORD})
            assert response.status_code == 204
            assert is_signed_in(browser)
            assert not is_signed_in(elsewhere)
            assert sign_in(elsewhere).status_code == 401
            assert sign_in(elsewhere, password=NEW_PASSWORD).status_code == 200
        assert server.events()[-1] == "user.password.update"

    def test_change_is_refused(self, server: AuthServer, browser: httpx.Client) -> None:
        server.make_user("ada@example.org")

        def change(old: str, new: str) -> httpx.Response:
            return browser.post("/auth/password", json={"old": old, "new": new})

        assert_error(change(PASSWORD, NEW_PASSWORD), 401, detail="Not signed in")
        sign_in(browser)
        assert_error(change(NEW_PASSWORD, NEW_PASSWORD), 403, detail="The old password is wrong")
        for new, message in ((PASSWORD, "old one"), ("short", "12 to 1024")):
            (item,) = assert_error(change(PASSWORD, new), 422)["detail"]
            assert item["loc"] == ["body", "new"]
            assert message in item["msg"]
        assert sign_in(browser).status_code == 200

    def test_change_needs_one(self, server: AuthServer, browser: httpx.Client) -> None:
        server.make_user("ada@example.org")
        sign_in(browser)
        with server.database.write() as connection:
            connection.execute(sa.update(users).values(password_hash=None))
        answer = browser.post("/auth/password", json={"old": PASSWORD, "new": NEW_PASSWORD})
        assert_error(answer, 409)


class TestInvitation:
    def accept(self, browser: httpx.Client, secret: str, **changed: Any) -> httpx.Response:
        body = {"secret": secret, "first_name": "Ada", "last_name": "L.", "password": PASSWORD, **changed}
        return browser.post("/auth/accept-invitation", json=body)

    def test_makes_a_user_who_is_signed_in(self, server: AuthServer, browser: httpx.Client) -> None:
        secret = server.invite("ada@example.org", roles=("organization_admin",))
        response = self.accept(browser, secret)
        assert response.status_code == 200
        user = response.json()["user"]
        assert (user["email"], user["last_name"], user["roles"]) == (
            "ada@example.org",
            "L.",
            ["organization_admin"],
        )
        assert is_signed_in(browser)
        assert {"user.create", "organization.invite.accepted", "user.organization.join"} <= set(
            server.events()
        )
        with server.browser() as elsewhere:
            assert sign_in(elsewhere).status_code == 200

    def test_is_good_once_and_for_a_week(self, server: AuthServer, browser: httpx.Client) -> None:
        secret, late = server.invite("ada@example.org"), server.invite("bob@example.org")
        assert self.accept(browser, secret).status_code == 200
        with server.browser() as other:
            assert_error(self.accept(other, secret), 404)
            assert_error(self.accept(other, "x" * 43), 404)
            server.clock.advance(days=7)
            assert_error(self.accept(other, late), 404)
            assert not is_signed_in(other)

    def test_is_still_good_after_a_password_that_is_not(
        self, server: AuthServer, browser: httpx.Client
    ) -> None:
        secret = server.invite("ada@example.org")
        (item,) = assert_error(self.accept(browser, secret, password="short"), 422)["detail"]
        assert item["loc"] == ["body", "password"]
        for name in ("", "a\0b", "x" * 256):
            assert_error(self.accept(browser, secret, first_name=name), 422)
        assert self.accept(browser, secret).status_code == 200

    def test_is_accepted_once_by_two_at_the_same_time(self, server: AuthServer) -> None:
        secret = server.invite("ada@example.org")

        def accept(_: int) -> int:
            with server.browser() as browser:
                return self.accept(browser, secret).status_code

        with ThreadPoolExecutor(3) as pool:
            assert sorted(pool.map(accept, range(3))) == [200, 404, 404]


POSTS = {
    "/auth/sign-in": {"email": "ada@example.org", "password": PASSWORD},
    "/auth/sign-out": {},
    "/auth/password": {"old": PASSWORD, "new": NEW_PASSWORD},
    "/auth/accept-invitation": {"secret": "x", "first_name": "A", "last_name": "B", "password": PASSWORD},
}


class TestOtherSites:
    @pytest.fixture
    def signed_in(self, server: AuthServer, browser: httpx.Client) -> httpx.Client:
        server.make_user("ada@example.org")
        assert sign_in(browser).status_code == 200
        return browser

    def test_forms_are_refused(self, signed_in: httpx.Client) -> None:
        for path in POSTS:
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
                headers = {"content-type": kind} if kind else {}
                assert_error(signed_in.post(path, content=b"{}", headers=headers), 415)
        assert is_signed_in(signed_in)

    def test_pages_are_refused(self, server: AuthServer, signed_in: httpx.Client) -> None:
        evil = "https://evil.example"
        for path, body in POSTS.items():
            for origin in (evil, "null", server.url + ".evil.example", server.url[:-1], "", "*"):
                assert_error(signed_in.post(path, json=body, headers={"origin": origin}), 403)
            twice = [("origin", server.url), ("origin", evil)]
            assert_error(signed_in.post(path, json=body, headers=twice), 403)
        assert is_signed_in(signed_in)

    def test_this_one_s_pages_are_served(self, server: AuthServer, signed_in: httpx.Client) -> None:
        kind = "Application/JSON; charset=utf-8"
        headers = {"origin": server.url, "content-type": kind}
        assert signed_in.post("/auth/sign-out", content=b"{}", headers=headers).status_code == 204

    def test_behind_a_proxy_the_public_one_s_too(self, sqlite_url: str) -> None:
        with (
            auth_server(Database(sqlite_url), public_url="https://mezzo.example") as server,
            server.browser() as browser,
        ):
            for origin, status in (
                ("https://mezzo.example", 401),
                (server.url, 401),
                ("http://mezzo.example", 403),
            ):
                body = POSTS["/auth/sign-in"]
                answer = browser.post("/auth/sign-in", json=body, headers={"origin": origin})
                assert answer.status_code == status

    def test_only_posts_change_anything(self, signed_in: httpx.Client) -> None:
        for path in POSTS:
            assert_error(signed_in.get(path), 404)
        assert is_signed_in(signed_in)


class TestBodies:
    def test_that_do_not_fit_are_refused_and_never_repeated(self, browser: httpx.Client) -> None:
        bodies = ("", "{", "[]", '"swordfish"', '{"a": "swordfish"}', '{"password": {"a": "swordfish"}}')
        for path in POSTS:
            for body in bodies:
                answer = browser.post(path, content=body, headers={"content-type": "application/json"})
                assert_error(answer, 422)
                assert "swordfish" not in answer.text

    def test_that_are_too_large_are_refused(self, browser: httpx.Client) -> None:
        assert_error(sign_in(browser, password="x" * 20_000), 413)


class TestGuesses:
    def test_of_one_account_end_after_some(self, server: AuthServer, browser: httpx.Client) -> None:
        server.make_user("ada@example.org")
        for _ in range(MAX_BY_EMAIL):
            assert sign_in(browser, password="a wrong password").status_code == 401
        for email in ("ada@example.org", "ADA@example.org"):
            answer = sign_in(browser, email)
            assert_error(answer, 429)
            assert WINDOW_S - 60 < int(answer.headers["retry-after"]) <= WINDOW_S
        assert sign_in(browser, "bob@example.org").status_code == 401

    def test_of_nobody_end_as_soon(self, browser: httpx.Client) -> None:
        statuses = [sign_in(browser, "nobody@example.org").status_code for _ in range(MAX_BY_EMAIL + 1)]
        assert statuses == [401] * MAX_BY_EMAIL + [429]

    def test_at_the_same_time_are_no_way_around(self, server: AuthServer) -> None:
        server.make_user("ada@example.org")

        def guess(number: int) -> int:
            with server.browser() as browser:
                return sign_in(browser, password=f"a wrong password {number}").status_code

        with ThreadPoolExecutor(MAX_BY_EMAIL + 4) as pool:
            statuses = sorted(pool.map(guess, range(MAX_BY_EMAIL + 4)))
        assert statuses == [401] * MAX_BY_EMAIL + [429] * 4

    def test_are_counted_by_the_address_before_a_trusted_proxy(self, sqlite_url: str) -> None:
        with (
            auth_server(Database(sqlite_url), trusted_proxies="127.0.0.1") as server,
            server.browser() as browser,
            capture_logs() as logs,
        ):
            browser.headers["x-forwarded-for"] = "192.0.2.7"
            sign_in(browser)
        assert "192.0.2.7" in {entry.get("address") for entry in logs}

    def test_of_the_old_password_count_as_well(self, server: AuthServer, browser: httpx.Client) -> None:
        server.make_user("ada@example.org")
        sign_in(browser)
        body = {"old": "a wrong password", "new": NEW_PASSWORD}
        statuses = [browser.post("/auth/password", json=body).status_code for _ in range(MAX_BY_EMAIL + 1)]
        assert statuses == [403] * MAX_BY_EMAIL + [429]
        assert sign_in(browser).status_code == 429


def test_logs_name_users_and_no_secrets(server: AuthServer, browser: httpx.Client) -> None:
    user = server.make_user("ada@example.org")
    invitation = server.invite("bob@example.org")
    with capture_logs() as logs:
        sign_in(browser, password="a wrong password")
        sign_in(browser, "my password by mistake", "a wrong password")
        sign_in(browser)
        secret = browser.cookies[SESSION_COOKIE]
        browser.post("/auth/password", json={"old": PASSWORD, "new": NEW_PASSWORD})
        browser.post(
            "/auth/accept-invitation", json={**POSTS["/auth/accept-invitation"], "secret": invitation}
        )
        browser.get("/auth/session")
        time.sleep(0.1)  # the last record is written after its answer
    told = [entry["event"] for entry in logs if entry["event"] not in {"request", "refused"}]
    assert told == ["sign-in failed", "sign-in failed", "signed in", "password changed", "signed in"]
    assert {
        "event": "signed in",
        "log_level": "info",
        "method": "password",
        "user_id": user.id,
        "address": "127.0.0.1",
    } in logs
    for hidden in (
        PASSWORD,
        NEW_PASSWORD,
        "wrong password",
        "by mistake",
        secret,
        invitation,
        "ada@example.org",
    ):
        assert hidden not in repr(logs)


async def test_the_same_person_twice_at_the_same_time_is_one_user(database: Database) -> None:
    prepare(database, operator_key="mz-" + "k" * 40, secret="s" * 43, currency="USD", now=NOW)
    sign_in = SignIn(
        database, lambda: NOW, lifetime=timedelta(hours=1), allowed_domains=frozenset({"example.org"})
    )
    ada = Identity("https://id.example", "subject-1", "ada@example.org", True, "Ada", "Lovelace")
    begun = await asyncio.gather(*(sign_in.by_identity(ada, ended=None) for _ in range(4)))
    assert len({session.user.id for session in begun}) == 1
    assert len({session.secret for session in begun}) == 4


def test_the_description_has_every_route_and_what_it_refers_to(sqlite_url: str) -> None:
    app = FastAPI()
    app.include_router(auth_routes(Settings(), Database(sqlite_url), lambda: NOW, "s" * 43))
    document = describe(app)
    assert POSTS.keys() | {"/auth/session", "/auth/oidc/sign-in", CALLBACK_PATH} == document["paths"].keys()
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert (
        {"SignInRequest", "SessionAnswer", "DetailError"} <= names <= document["components"]["schemas"].keys()
    )
