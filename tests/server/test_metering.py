"""What a client is charged and refused, through the API, and what the books say of it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from mezzo.metering.reconcile import reconcile
from mezzo.store.tables import (
    idempotency_keys,
    open_requests,
    organizations,
    rate_limits,
    spend,
    usage_records,
    workspaces,
)
from tests.fakes import FakeBackend, Script
from tests.server.live import (
    KEY,
    MODEL,
    MODEL_ID,
    NOW,
    LiveServer,
    assert_error,
    chat,
    events_of,
    live_server,
    wait_until,
)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def record(server: LiveServer, answer: httpx.Response) -> Any:
    (row,) = [row for row in server.rows(usage_records) if row.id == answer.json()["id"]]
    return row


def assert_agrees(server: LiveServer) -> None:
    wait_until(lambda: not server.rows(open_requests))
    with server.services.database.read() as connection:
        assert reconcile(connection).findings == ()


class TestRecords:
    def test_an_answer_is_in_the_books_when_the_client_has_it(self, server: LiveServer) -> None:
        answer = server.post(chat("Hi", max_tokens=3))
        row = record(server, answer)
        assert (row.prompt_tokens, row.completion_tokens, row.status) == (2, 3, "finished")
        assert (row.model, row.model_id, row.weights) == (MODEL, MODEL_ID, "fake")
        assert row.amount == 2 * 400 + 3 * 2000
        assert row.workspace_id == server.services.installation.workspace_id
        assert row.latency_us > 0
        assert not row.is_stream

    def test_a_stream_is_in_the_books_before_its_last_chunk(self, server: LiveServer) -> None:
        with server.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
            seen = ""
            for text in response.iter_text():
                seen += text
                if '"usage"' in seen:
                    break
            rows = server.rows(usage_records)
        assert [row.completion_tokens for row in rows if row.is_stream and f'"id":"{row.id}"' in seen] == [6]

    def test_cached_tokens_have_their_own_price(self, server: LiveServer) -> None:
        server.backend.script = Script(cached_tokens=64)
        row = record(server, server.post(chat("x" * 100, max_tokens=1)))
        assert (row.prompt_tokens, row.cached_tokens) == (100, 64)
        assert (row.input_amount, row.cached_input_amount) == (36 * 400, 64 * 40)

    def test_all_choices_are_one_record(self, server: LiveServer) -> None:
        row = record(server, server.post(chat("Hi", n=3, max_tokens=2)))
        assert (row.prompt_tokens, row.completion_tokens) == (2, 6)

    def test_what_was_generated_until_the_client_left_is_billed(self) -> None:
        with live_server(FakeBackend(Script(text="x" * 1000, step_s=0.01))) as live:
            with live.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
                for seen, _ in enumerate(response.iter_lines()):
                    if seen == 10:
                        break
            wait_until(lambda: live.rows(usage_records))
            (row,) = live.rows(usage_records)
            assert row.status == "aborted"
            assert 3 <= row.completion_tokens <= 100
            assert row.amount == 2 * 400 + row.completion_tokens * 2000
            assert_agrees(live)

    def test_what_failed_on_our_side_is_not_billed(self) -> None:
        with live_server(FakeBackend(Script(text="x" * 100, fail_at_step=5))) as live:
            assert live.post(chat()).status_code == 503
            events = events_of(live.post(chat(stream=True)).text)
            assert '"finish_reason":"error"' in events[-2]
            rows = live.rows(usage_records)
            assert [(row.status, row.amount, row.completion_tokens) for row in rows] == [("failed", 0, 5)] * 2
            assert live.rows(spend) == []
            assert_agrees(live)

    def test_what_was_refused_is_not_in_the_books(self, server: LiveServer) -> None:
        before = len(server.rows(usage_records))
        assert server.post(chat("x" * 5000)).status_code == 400
        assert server.post(chat() | {"model": "x"}).status_code == 400
        assert server.post(chat(temperature=9)).status_code == 422
        assert len(server.rows(usage_records)) == before

    def test_priority_is_for_workspaces_that_have_it(self, server: LiveServer) -> None:
        workspace = server.make_workspace(has_priority=True)
        key = server.make_key(workspace_id=workspace)
        for headers, wanted, tier, price in [
            (bearer(key), "auto", "priority", 3500),
            (bearer(key), "standard_only", "standard", 2000),
            (bearer(key), None, "standard", 2000),
            ({}, "auto", "standard", 2000),
        ]:
            body = chat("Hi", max_tokens=1) | ({"service_tier": wanted} if wanted else {})
            answer = server.post(body, headers=headers)
            assert answer.json()["usage"]["service_tier"] == tier
            row = record(server, answer)
            assert (row.service_tier, row.output_amount) == (tier, price)


class TestSpendingLimits:
    def test_a_hundred_requests_at_the_edge(self) -> None:
        cost = 2 * 400 + 6 * 2000
        with live_server(FakeBackend(Script(step_s=0.002)), max_queue=200) as live:
            key = live.make_key(monthly_limit=25 * cost)
            body = chat("Hi", max_tokens=6)
            with (
                ThreadPoolExecutor(100) as pool,
                httpx.Client(headers=bearer(key), trust_env=False) as client,
            ):
                answers = list(
                    pool.map(
                        lambda _: client.post(live.url + "/v1/chat/completions", json=body, timeout=30),
                        range(100),
                    )
                )
            assert sorted({answer.status_code for answer in answers}) == [200, 402]
            num_good = sum(answer.status_code == 200 for answer in answers)
            assert num_good <= 25
            (total,) = [row.amount for row in live.rows(spend) if row.scope == "api_key"]
            assert total == num_good * cost
            # What reservations kept back is free again: the rest of the limit can be spent, and no more.
            for _ in range(25 - num_good):
                assert live.post(body, headers=bearer(key)).status_code == 200
            refused = live.post(body, headers=bearer(key))
            assert_error(refused, 402, type="spend_limit_exceeded", code=None)
            assert "retry-after" not in refused.headers
            assert_agrees(live)

    @pytest.mark.parametrize("table", [organizations, workspaces])
    def test_organisations_and_workspaces_have_limits_too(self, table: sa.Table) -> None:
        with live_server() as live:
            assert live.post(chat(max_tokens=1)).status_code == 200
            with live.services.database.write() as connection:
                connection.execute(sa.update(table).values(monthly_limit=5000))
            wait_until(lambda: live.post(chat(max_tokens=1)).status_code == 402)


class TestLimitsOfWorkspaces:
    def test_keys_of_a_workspace_share_its_limit_and_others_have_theirs(self) -> None:
        with live_server(requests_per_minute=2) as live:
            mine, others = live.make_key(), live.make_key(workspace_id=live.make_workspace())
            assert live.post(chat()).headers["x-ratelimit-remaining-req-minute"] == "1"
            assert live.post(chat(), headers=bearer(mine)).status_code == 200
            assert_error(live.post(chat()), 429, code="1300")
            assert live.post(chat(), headers=bearer(others)).status_code == 200

    def test_an_administrator_s_limits_come_first(self) -> None:
        with live_server(requests_per_minute=100) as live:
            with live.services.database.write() as connection:
                connection.execute(
                    sa.insert(rate_limits).values(
                        workspace_id=live.services.installation.workspace_id,
                        model_id=MODEL_ID,
                        requests_per_minute=1,
                        tokens_per_month=100,
                    )
                )
            assert live.post(chat()).headers["x-ratelimit-limit-req-minute"] == "1"
            assert live.post(chat()).status_code == 429

    def test_a_monthly_quota(self) -> None:
        with live_server(tokens_per_month=10) as live:
            for _ in range(2):
                assert live.post(chat("Hi", max_tokens=3)).status_code == 200
            refused = live.post(chat("Hi"))
            body = assert_error(refused, 429, code="1300")
            assert "monthly" in body["message"]
            assert "retry-after" not in refused.headers


class TestKeys:
    def test_an_admin_key_makes_no_requests(self, server: LiveServer) -> None:
        answer = server.post(chat(), headers=bearer(server.make_key(admin=True)))
        assert answer.status_code == 403
        assert list(answer.json()) == ["detail"]

    def test_a_key_of_an_archived_workspace_is_nobody_s(self, server: LiveServer) -> None:
        workspace_id = server.make_workspace()
        key = server.make_key(workspace_id=workspace_id)
        with server.services.database.write() as connection:
            connection.execute(
                sa.update(workspaces)
                .where(workspaces.c.id == workspace_id)
                .values(archived_at=server.services.clock())
            )
        assert server.post(chat(), headers=bearer(key)).json() == {"detail": "Invalid API Key"}


class TestIdempotency:
    def test_a_second_call_gets_the_stored_answer(self, server: LiveServer) -> None:
        headers = {"idempotency-key": "first"}
        answer = server.post(chat(), headers=headers)
        num_submits, num_records = server.backend.num_submits, len(server.rows(usage_records))
        again = server.post(chat(), headers=headers)
        assert again.content == answer.content
        assert again.headers["content-type"] == "application/json"
        assert again.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in answer.headers
        assert server.backend.num_submits == num_submits
        assert len(server.rows(usage_records)) == num_records

    def test_a_stream_is_told_again_to_the_byte(self, server: LiveServer) -> None:
        headers = {"idempotency-key": "stream"}
        answer = server.post(chat(stream=True), headers=headers)
        again = server.post(chat(stream=True), headers=headers)
        assert again.text == answer.text
        assert events_of(again.text)[-1] == "[DONE]"
        assert again.headers["content-type"] == answer.headers["content-type"]

    def test_another_body_is_an_error(self, server: LiveServer) -> None:
        headers = {"idempotency-key": "other body"}
        assert server.post(chat("a"), headers=headers).status_code == 200
        assert_error(server.post(chat("b"), headers=headers), 409, param="Idempotency-Key")

    def test_keys_belong_to_the_workspace(self, server: LiveServer) -> None:
        headers = {"idempotency-key": "shared"}
        answer = server.post(chat(), headers=headers)
        colleague = server.post(chat(), headers=headers | bearer(server.make_key()))
        stranger = server.post(
            chat(), headers=headers | bearer(server.make_key(workspace_id=server.make_workspace()))
        )
        assert colleague.json()["id"] == answer.json()["id"]
        assert stranger.json()["id"] != answer.json()["id"]

    def test_calls_at_the_same_time_are_one(self) -> None:
        with live_server(FakeBackend(Script(text="x" * 20, step_s=0.02))) as live:
            headers = {"idempotency-key": "at once"}
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: live.post(chat(), headers=headers), range(8)))
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.content for answer in answers}) == 1
            assert len(live.rows(usage_records)) == 1

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_call_goes_on_when_its_client_leaves(self, stream: bool) -> None:
        with live_server(FakeBackend(Script(text="x" * 100, step_s=0.02))) as live:
            headers, body = {"idempotency-key": "left"}, chat(stream=stream)
            with httpx.Client(
                headers=bearer(KEY) | headers, trust_env=False, timeout=20 if stream else 0.7
            ) as client:
                if stream:
                    with client.stream("POST", live.url + "/v1/chat/completions", json=body) as response:
                        next(response.iter_lines())
                else:
                    with pytest.raises(httpx.ReadTimeout):
                        client.post(live.url + "/v1/chat/completions", json=body)
            answer = live.post(body, headers=headers)
            assert answer.headers["idempotent-replayed"] == "true"
            assert len(live.backend.generations) == 1
            (row,) = live.rows(usage_records)
            assert (row.status, row.completion_tokens) == ("finished", 100)
            assert_agrees(live)

    def test_a_call_that_failed_may_be_made_again(self) -> None:
        with live_server(FakeBackend(Script(fail_at_step=2))) as live:
            headers = {"idempotency-key": "failed"}
            assert live.post(chat(), headers=headers).status_code == 503
            live.backend.script = Script()
            assert live.post(chat(), headers=headers).status_code == 200
            assert [row.status for row in live.rows(usage_records)] == ["failed", "finished"]

    @pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
    def test_what_is_no_key(self, server: LiveServer, key: str) -> None:
        assert_error(server.post(chat(), headers={"idempotency-key": key}), 400, param="Idempotency-Key")

    def test_answers_are_not_readable_in_the_database(self, server: LiveServer) -> None:
        server.backend.script = Script(text="a very particular answer")
        server.post(chat(), headers={"idempotency-key": "particular"})
        stored = b"".join(bytes(row.answer) for row in server.rows(idempotency_keys) if row.answer)
        assert stored
        assert b"particular" not in stored


def test_clocks_that_jump() -> None:
    with live_server(requests_per_minute=100) as live:
        key = live.make_key(monthly_limit=2 * 400 + 1 * 2000)
        body = chat("Hi", max_tokens=1)
        assert live.post(body, headers=bearer(key)).status_code == 200
        assert live.post(body, headers=bearer(key)).status_code == 402
        live.now = NOW + timedelta(days=30)  # another month, another limit
        assert live.post(body, headers=bearer(key)).status_code == 200
        live.now = NOW - timedelta(days=1000)  # before there was a price
        assert_error(live.post(body), 503, code="3800")
        live.now = NOW - timedelta(days=1)
        assert live.post(body, headers=bearer(key)).status_code == 200  # August
        live.now = NOW
        assert live.post(body, headers=bearer(key)).status_code == 402
        months = sorted(row.month for row in live.rows(usage_records))
        assert months == ["2026-08", "2026-09", "2026-10"]
        assert_agrees(live)


def test_a_stolen_database_has_no_usable_key(server: LiveServer) -> None:
    secret = server.make_key()
    assert server.services.database.path is not None
    server.post(chat("something private"))
    files = server.services.database.path.parent.glob("mezzo.db*")
    content = b"".join(file.read_bytes() for file in files)
    for text in (secret, secret[3:-4], KEY, "something private"):
        assert text.encode() not in content
    assert all(
        file.stat().st_mode & 0o077 == 0 for file in server.services.database.path.parent.glob("mezzo.db*")
    )


def test_nothing_is_served_that_cannot_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise sa.exc.OperationalError("", None, OSError("disk full"), connection_invalidated=True)

    with live_server() as live:
        journal = live.services.books.journal
        monkeypatch.setattr("mezzo.store.group_commit.RETRY_AFTER_S", (0.01,))
        monkeypatch.setattr(live.services.database, "writer", refuse)
        drop_connection(journal)
        assert_error(live.post(chat()), 503, code="3800")
        num_generations = len(live.backend.generations)
        for stream in (False, True):
            assert_error(live.post(chat(stream=stream)), 503, code="3800")
        assert len(live.backend.generations) == num_generations, "worked for what could not be entered"
        monkeypatch.undo()
        wait_until(lambda: live.post(chat()).status_code == 200)


def test_an_answer_that_cannot_be_entered_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up while the request runs: its client is told so, and it costs nothing."""
    with live_server(FakeBackend(Script(text="x" * 10, step_s=0.05))) as live:
        monkeypatch.setattr("mezzo.store.group_commit.RETRY_AFTER_S", (0.01,))

        def fail() -> Any:
            raise sa.exc.OperationalError("", None, OSError("disk full"), connection_invalidated=True)

        def fill() -> None:
            wait_until(lambda: live.rows(open_requests))
            monkeypatch.setattr(live.services.database, "writer", fail)
            drop_connection(live.services.books.journal)

        filling = threading.Thread(target=fill)
        filling.start()
        events = events_of(live.post(chat(stream=True)).text)
        filling.join()
        assert '"finish_reason":"error"' in events[-2]
        assert events[-1] == "[DONE]"
        monkeypatch.undo()
        wait_until(lambda: live.rows(usage_records), timeout_s=5)
        (row,) = live.rows(usage_records)
        assert (row.status, row.amount) == ("failed", 0)


def drop_connection(journal: Any) -> None:
    """Let the journal need a new connection for its next transaction."""
    commits = journal._commits
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), commits._loop).result()
    commits._connection = None
