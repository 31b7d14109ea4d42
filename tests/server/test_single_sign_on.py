"""/auth/oidc/*: single sign-on at a real provider, and at one that does wrong."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from mezzo.accounts.audit import OPERATOR
from mezzo.accounts.users import remove_user
from mezzo.server.cookies import SESSION_COOKIE, SIGN_ON_COOKIE, SIGN_ON_LIFETIME_S
from mezzo.server.routes.auth.single_sign_on import CALLBACK_PATH, MAX_RETURN_LENGTH
from mezzo.store.database import Database
from mezzo.store.tables import sessions, users
from tests.databases import new_sqlite
from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from tests.server.auth_server import NO_TLS, NOW, AuthServer, auth_server
from tests.server.live import assert_error

ADA = {
    "email": "ada@example.org",
    "email_verified": True,
    "given_name": "Ada",
    "family_name": "Lovelace",
    "name": "Ada Lovelace",
}
REFUSED = "The sign-in was refused, or took too long: start again"
UNAVAILABLE = "The identity provider cannot be used at this moment; the server's log says why"


@contextmanager
def server_at(sqlite_url: str, provider: IdentityProvider, **settings: Any) -> Iterator[AuthServer]:
    database = Database(sqlite_url)
    options = {
        "oidc_issuer": provider.issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": CLIENT_SECRET,
        **settings,
    }
    with auth_server(database, **options) as server:
        provider.redirect_to(server.url + CALLBACK_PATH)
        provider.sign_in_as("subject-1", **ADA)
        yield server
    database.dispose()


@pytest.fixture
def server(sqlite_url: str, identity_provider: IdentityProvider) -> Iterator[AuthServer]:
    with server_at(sqlite_url, identity_provider) as server:
        yield server


@pytest.fixture(scope="module")
def lasting_server(
    tmp_path_factory: pytest.TempPathFactory,
    identity_provider_process: IdentityProvider,
) -> Iterator[AuthServer]:
    with server_at(new_sqlite(tmp_path_factory.mktemp("lasting")), identity_provider_process) as server:
        server.make_user("ada@example.org", password=None)
        yield server


@pytest.fixture
def shared_server(lasting_server: AuthServer, identity_provider: IdentityProvider) -> AuthServer:
    """A server that Ada has an account on, for tests that leave nothing behind."""
    identity_provider.redirect_to(lasting_server.url + CALLBACK_PATH)
    identity_provider.sign_in_as("subject-1", **ADA)
    return lasting_server


@pytest.fixture
def ada(shared_server: AuthServer) -> Iterator[httpx.Client]:
    """Her browser."""
    with shared_server.browser() as browser:
        yield browser


@pytest.fixture
def browser(server: AuthServer) -> Iterator[httpx.Client]:
    with server.browser() as browser:
        yield browser


def leave(browser: httpx.Client, **query: str) -> str:
    """Begin a single sign-on and return where the browser is sent."""
    response = browser.get("/auth/oidc/sign-in", params=query)
    assert response.status_code == 302, response.text
    return response.headers["location"]


def come_back(browser: httpx.Client, **query: str) -> str:
    """Begin a single sign-on, pass the provider, and return the address that it sends the browser back to."""
    response = httpx.get(leave(browser, **query), trust_env=False, verify=NO_TLS)
    assert response.status_code == 302, response.text
    return response.headers["location"]


def sign_on(browser: httpx.Client, **query: str) -> httpx.Response:
    return browser.get(come_back(browser, **query))


def who(browser: httpx.Client) -> dict[str, Any]:
    response = browser.get("/auth/session")
    assert response.status_code == 200, response.text
    user: dict[str, Any] = response.json()["user"]
    return user


def told(logs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return what was logged beside the requests."""
    return [entry for entry in logs if entry["event"] not in {"request", "refused"}]


def num_users(server: AuthServer) -> int:
    with server.database.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(users)).scalar_one()


class TestThereAndBack:
    def test_by_invitation_the_first_time_and_by_subject_from_then_on(
        self, server: AuthServer, browser: httpx.Client, identity_provider: IdentityProvider
    ) -> None:
        server.invite("ada@example.org", roles=("organization_admin",))
        response = sign_on(browser, return_to="/console?tab=1#keys")
        assert response.status_code == 303
        assert response.headers["location"] == "/console?tab=1#keys"
        assert response.headers["cache-control"] == "no-store"
        user = who(browser)
        assert (user["email"], user["first_name"], user["last_name"]) == (
            "ada@example.org",
            "Ada",
            "Lovelace",
        )
        assert user["roles"] == ["organization_admin"]
        assert server.events() == [
            "organization.invite.send",
            "user.create",
            "workspace.member.add",
            "organization.invite.accepted",
            "user.organization.join",
        ]
        identity_provider.sign_in_as("subject-1", email="ada@married.example", email_verified=False)
        with server.browser() as later:
            assert sign_on(later).headers["location"] == "/"
            assert who(later) == user
        assert num_users(server) == 1

    def test_opens_the_account_with_the_verified_email(
        self, server: AuthServer, browser: httpx.Client
    ) -> None:
        user = server.make_user("ada@example.org", password=None)
        assert sign_on(browser).status_code == 303
        assert who(browser)["id"] == user.id

    def test_joins_by_domain(self, sqlite_url: str, identity_provider: IdentityProvider) -> None:
        with server_at(sqlite_url, identity_provider, oidc_allowed_domains="Example.org") as server:
            with server.browser() as browser:
                assert sign_on(browser).status_code == 303
                assert who(browser)["roles"] == ["member"]
            identity_provider.sign_in_as("subject-2", email="eve@example.com", email_verified=True)
            with server.browser() as other:
                assert_error(sign_on(other), 403)

    def test_replaces_the_session_that_was(self, server: AuthServer, browser: httpx.Client) -> None:
        server.make_user("ada@example.org", password=None)
        sign_on(browser)
        first = browser.cookies[SESSION_COOKIE]
        sign_on(browser)
        assert browser.cookies[SESSION_COOKIE] != first
        with server.database.read() as connection:
            assert len(connection.execute(sa.select(sessions)).all()) == 1

    def test_reads_the_email_from_userinfo_where_it_stands_only_there(
        self, server: AuthServer, browser: httpx.Client, identity_provider: IdentityProvider
    ) -> None:
        server.make_user("ada@example.org", password=None)
        identity_provider.spoil("only in userinfo")
        assert sign_on(browser).status_code == 303
        assert who(browser)["email"] == "ada@example.org"

    def test_takes_names_as_they_are_told(
        self, server: AuthServer, identity_provider: IdentityProvider
    ) -> None:
        told: list[tuple[dict[str, Any], tuple[str, str]]] = [
            ({"name": "Ada King  Lovelace"}, ("Ada", "King Lovelace")),
            ({"name": "Ada"}, ("Ada", "-")),
            ({"given_name": "Ada", "family_name": "\u5c71\u3000\u7530\u0000\n"}, ("Ada", "\u5c71 \u7530")),
            ({}, ("ada3", "-")),
            ({"given_name": ["x"], "name": None, "family_name": "x" * 999}, ("ada4", "x" * 255)),
        ]
        for number, (claims, names) in enumerate(told):
            email = f"ada{number}@example.org"
            server.invite(email)
            identity_provider.sign_in_as(f"subject-{number}", email=email, email_verified=True, **claims)
            with server.browser() as browser:
                assert sign_on(browser).status_code == 303
                user = who(browser)
            assert (user["first_name"], user["last_name"]) == names


class TestRequest:
    def test_asks_for_a_code_with_pkce_a_state_and_a_nonce(
        self, shared_server: AuthServer, ada: httpx.Client
    ) -> None:
        query = parse_qs(urlsplit(leave(ada)).query)
        assert query["response_type"] == ["code"]
        assert query["scope"] == ["openid email profile"]
        assert query["redirect_uri"] == [shared_server.url + CALLBACK_PATH]
        assert query["code_challenge_method"] == ["S256"]
        for name in ("state", "nonce", "code_challenge"):
            (value,) = query[name]
            assert len(value) >= 20
        again = parse_qs(urlsplit(leave(ada)).query)
        assert all(query[name] != again[name] for name in ("state", "nonce", "code_challenge"))

    def test_what_it_remembers_cannot_be_read_or_sent_elsewhere(self, ada: httpx.Client) -> None:
        response = ada.get("/auth/oidc/sign-in")
        (morsel,) = SimpleCookie(response.headers["set-cookie"]).values()
        assert (morsel.key, morsel["path"], morsel["samesite"]) == (SIGN_ON_COOKIE, "/auth/oidc", "lax")
        assert morsel["httponly"]
        assert morsel["max-age"] == str(SIGN_ON_LIFETIME_S)
        longest = ada.get("/auth/oidc/sign-in", params={"return_to": "/" + "x" * (MAX_RETURN_LENGTH - 1)})
        assert len(longest.headers["set-cookie"]) < 4000  # browsers keep 4096 bytes
        query = parse_qs(urlsplit(response.headers["location"]).query)
        for name in ("state", "nonce"):
            assert query[name][0].encode() not in base64.urlsafe_b64decode(morsel.value)

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "console",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/\t/evil.example",
            "/a\nb",
            "/" + "x" * 2000,
        ],
    )
    def test_returns_to_own_paths_only(self, ada: httpx.Client, path: str) -> None:
        (item,) = ada.get("/auth/oidc/sign-in", params={"return_to": path}).json()["detail"]
        assert item["loc"] == ["query", "return_to"]


class TestRefused:
    def test_nobody_knows_them(self, server: AuthServer, browser: httpx.Client) -> None:
        assert_error(sign_on(browser), 403)
        assert num_users(server) == 0

    def test_the_email_is_not_verified(
        self, server: AuthServer, browser: httpx.Client, identity_provider: IdentityProvider
    ) -> None:
        server.make_user("ada@example.org", password=None)
        server.invite("bob@example.org")
        for email in ("ada@example.org", "bob@example.org"):
            for verified in ({"email_verified": False}, {"email_verified": "true"}, {}):
                identity_provider.sign_in_as("subject-1", email=email, **verified)
                assert_error(sign_on(browser), 403)
        assert num_users(server) == 1

    def test_the_user_was_deleted(self, sqlite_url: str, identity_provider: IdentityProvider) -> None:
        with (
            server_at(sqlite_url, identity_provider, oidc_allowed_domains="example.org") as server,
            server.browser() as browser,
        ):
            sign_on(browser)
            with server.database.write() as connection:
                remove_user(
                    connection,
                    organization_id=server.organization_id,
                    user_id=who(browser)["id"],
                    actor=OPERATOR,
                    now=NOW,
                )
            assert_error(browser.get("/auth/session"), 401)
            assert_error(sign_on(browser), 403)

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ("expired", "expired_token"),
            ("wrong nonce", "invalid_claim (nonce)"),
            ("no nonce", "missing_claim (nonce)"),
            ("wrong issuer", "invalid_claim (iss)"),
            ("wrong audience", "invalid_claim (aud)"),
            ("foreign key", "bad_signature"),
            ("signed by the secret", "unsupported_algorithm"),
            ("no ID token", "no ID token"),
            ("userinfo of another", "somebody else"),
        ],
    )
    def test_the_tokens_are_not_good(
        self, ada: httpx.Client, identity_provider: IdentityProvider, fault: str, reason: str
    ) -> None:
        identity_provider.spoil(fault)
        with capture_logs() as logs:
            assert_error(sign_on(ada), 401, detail=REFUSED)
        assert SESSION_COOKIE not in ada.cookies
        assert reason in told(logs)[-1]["reason"]
        identity_provider.spoil(None)
        assert sign_on(ada).status_code == 303

    def test_the_tokens_have_no_signature_though_the_provider_says_that_may_be(
        self, server: AuthServer, browser: httpx.Client, identity_provider: IdentityProvider
    ) -> None:
        server.make_user("ada@example.org", password=None)
        identity_provider.spoil("no signature")
        with capture_logs() as logs:
            assert_error(sign_on(browser), 401, detail=REFUSED)
        assert "unsupported_algorithm" in told(logs)[-1]["reason"]

    def test_the_state_is_another(self, shared_server: AuthServer, ada: httpx.Client) -> None:
        back = come_back(ada)
        state = parse_qs(urlsplit(back).query)["state"][0]
        assert_error(ada.get(back.replace(state, "x" + state[1:])), 401, detail=REFUSED)
        # One attempt: the true answer comes too late.
        assert_error(ada.get(back), 401, detail=REFUSED)

    def test_another_browser_began_it(self, shared_server: AuthServer, ada: httpx.Client) -> None:
        back = come_back(ada)
        with shared_server.browser() as victim:
            assert_error(victim.get(back), 401, detail=REFUSED)
            leave(victim)
            assert_error(victim.get(back), 401, detail=REFUSED)
            assert SESSION_COOKIE not in victim.cookies

    def test_the_code_was_used(self, shared_server: AuthServer, ada: httpx.Client) -> None:
        back = come_back(ada)
        remembered = ada.cookies[SIGN_ON_COOKIE]
        assert ada.get(back).status_code == 303
        with shared_server.browser() as thief:
            thief.cookies.set(SIGN_ON_COOKIE, remembered)
            assert_error(thief.get(back), 401, detail=REFUSED)

    def test_the_code_was_stolen_from_another_sign_on(
        self, shared_server: AuthServer, ada: httpx.Client
    ) -> None:
        """Codes are bound to the PKCE verifier, which never left the browser's sealed cookie."""
        code = parse_qs(urlsplit(come_back(ada)).query)["code"][0]
        with shared_server.browser() as thief:
            back = come_back(thief)
            own_code = parse_qs(urlsplit(back).query)["code"][0]
            assert_error(thief.get(back.replace(own_code, code)), 401, detail=REFUSED)

    def test_it_took_too_long(self, server: AuthServer, browser: httpx.Client) -> None:
        server.make_user("ada@example.org", password=None)
        back = come_back(browser)
        server.clock.advance(seconds=SIGN_ON_LIFETIME_S + 1)
        assert_error(browser.get(back), 401, detail=REFUSED)

    @pytest.mark.parametrize(
        "query", ["", "?error=access_denied&error_description=SECRETS&state=x", "?state=x", "?code=x"]
    )
    def test_the_answer_is_none(self, shared_server: AuthServer, ada: httpx.Client, query: str) -> None:
        leave(ada)
        assert_error(ada.get(CALLBACK_PATH + query), 401, detail=REFUSED)

    @pytest.mark.parametrize("cookie", ["", "x", "gAAAAA", "é"])
    def test_the_cookie_is_forged(self, shared_server: AuthServer, cookie: str) -> None:
        headers = {"cookie": f"{SIGN_ON_COOKIE}={cookie}".encode()}
        answer = httpx.get(
            shared_server.url + CALLBACK_PATH + "?code=x&state=x",
            headers=headers,
            trust_env=False,
            verify=NO_TLS,
        )
        assert_error(answer, 401, detail=REFUSED)


class TestProvider:
    def test_that_is_down(self, sqlite_url: str, identity_provider: IdentityProvider) -> None:
        with socket.socket() as unanswered:
            unanswered.bind(("127.0.0.1", 0))
            issuer = f"http://127.0.0.1:{unanswered.getsockname()[1]}"
            with (
                server_at(sqlite_url, identity_provider, oidc_issuer=issuer) as server,
                server.browser() as browser,
                capture_logs() as logs,
            ):
                answer = browser.get("/auth/oidc/sign-in")
                assert_error(answer, 503, detail=UNAVAILABLE)
                assert answer.headers["retry-after"] == "30"
                assert_error(browser.get(CALLBACK_PATH + "?code=x&state=x"), 503)
            assert "cannot be reached: ConnectError" in logs[0]["reason"]

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ("another issuer", "it calls itself"),
            ("only symmetric", "no algorithm that is accepted"),
            ("no description", "does not describe a provider"),
            ("no URL", "does not describe a provider (jwks_uri)"),
        ],
    )
    def test_that_is_not_what_was_set(
        self,
        server: AuthServer,
        browser: httpx.Client,
        identity_provider: IdentityProvider,
        fault: str,
        reason: str,
    ) -> None:
        identity_provider.spoil(fault)
        with capture_logs() as logs:
            assert_error(browser.get("/auth/oidc/sign-in"), 503, detail=UNAVAILABLE)
        assert reason in logs[0]["reason"]
        identity_provider.spoil(None)  # and nothing wrong was remembered
        leave(browser)

    @pytest.mark.parametrize("fault", ["server error", "no JSON", "a list"])
    def test_that_breaks_on_the_way(
        self, server: AuthServer, browser: httpx.Client, identity_provider: IdentityProvider, fault: str
    ) -> None:
        server.make_user("ada@example.org", password=None)
        identity_provider.spoil(fault)
        with capture_logs() as logs:
            answer = sign_on(browser)
        assert_error(answer, 503, detail=UNAVAILABLE)
        assert "SECRETS" not in answer.text + repr(logs)

    def test_that_knows_another_secret(self, sqlite_url: str, identity_provider: IdentityProvider) -> None:
        with (
            server_at(sqlite_url, identity_provider, oidc_client_secret="another-secret") as server,
            server.browser() as browser,
            capture_logs() as logs,
        ):
            assert_error(sign_on(browser), 503)
        assert any("check oidc_client_id" in entry.get("reason", "") for entry in logs)
        assert "another-secret" not in repr(logs)

    def test_that_takes_the_secret_by_post_only(
        self, server: AuthServer, browser: httpx.Client, identity_provider: IdentityProvider
    ) -> None:
        server.make_user("ada@example.org", password=None)
        identity_provider.spoil("post only")
        assert sign_on(browser).status_code == 303

    def test_that_is_none(self, sqlite_url: str) -> None:
        with auth_server(Database(sqlite_url)) as server, server.browser() as browser:
            for path in ("/auth/oidc/sign-in", CALLBACK_PATH):
                assert_error(browser.get(path), 404, detail="Single sign-on is not set up on this server")


def test_logs_tell_who_and_why_and_no_secrets(
    server: AuthServer, browser: httpx.Client, identity_provider: IdentityProvider
) -> None:
    server.make_user("ada@example.org", password=None)
    with capture_logs() as logs:
        back = come_back(browser)
        remembered = browser.cookies[SIGN_ON_COOKIE]
        browser.get(back)
        identity_provider.spoil("expired")
        sign_on(browser)
    success, failure = told(logs)
    assert (success["event"], failure["event"]) == ("signed in", "sign-in failed")
    assert success["issuer"] == identity_provider.issuer
    assert failure["reason"] == "the ID token is not good: expired_token (exp)"
    code = parse_qs(urlsplit(back).query)["code"][0]
    for hidden in (code, remembered, browser.cookies[SESSION_COOKIE], CLIENT_SECRET, "ada@example.org"):
        assert hidden not in repr(logs)
