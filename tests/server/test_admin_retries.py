"""Calls of the admin API that are sent again: made once, answered alike."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import sqlalchemy as sa

from mezzo.store.tables import api_keys, audit_log, idempotency_keys, workspaces
from tests.server.live import LiveServer, chat, live_server


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with live_server() as server:
        yield server


def post(live: LiveServer, path: str, body: object, key: str) -> httpx.Response:
    headers = {"x-api-key": live.make_key(admin=True), "idempotency-key": key}
    return httpx.post(live.url + "/v1/admin" + path, json=body, headers=headers, trust_env=False, timeout=20)


def person(live: LiveServer) -> str:
    body = [{"email": "ada@example.org", "first_name": "Ada", "last_name": "L", "role_names": ["member"]}]
    return str(post(live, "/users", body, "person").json()["email_to_user_id"]["ada@example.org"])


def test_a_key_is_made_once_and_its_secret_told_again(live: LiveServer) -> None:
    body = {"workspace_uuid": live.services.installation.workspace_id, "user_id": person(live), "name": "ci"}
    first = post(live, "/api-keys", body, "a key")
    again = post(live, "/api-keys", body, "a key")
    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    secret = first.json()["key"]
    assert live.post(chat(), headers={"authorization": f"Bearer {secret}"}).status_code == 200
    assert [row.name for row in live.rows(api_keys)].count("ci") == 1
    stored = str(live.rows(idempotency_keys)) + str(live.rows(audit_log))
    assert secret not in stored


def test_calls_at_the_same_time_make_one(live: LiveServer) -> None:
    body = {"name": "At once", "admin_user_id": person(live)}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: post(live, "/workspaces", body, "at once"), range(6)))
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].status_code == 200
    with live.services.database.read() as connection:
        named = sa.select(sa.func.count()).select_from(workspaces).where(workspaces.c.name == "At once")
        assert connection.execute(named).scalar_one() == 1


def test_another_body_is_an_error(live: LiveServer) -> None:
    user = person(live)
    assert post(live, "/workspaces", {"name": "One", "admin_user_id": user}, "reused").status_code == 200
    refused = post(live, "/workspaces", {"name": "Two", "admin_user_id": user}, "reused")
    assert refused.status_code == 409
    assert refused.json()["param"] == "Idempotency-Key"


def test_a_call_that_is_refused_takes_no_key(live: LiveServer) -> None:
    body = {"name": "Nobody's", "admin_user_id": "00000000-0000-4000-8000-000000000000"}
    assert post(live, "/workspaces", body, "refused").status_code == 404
    body["admin_user_id"] = person(live)
    assert post(live, "/workspaces", body, "refused").status_code == 200
