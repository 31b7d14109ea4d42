"""mezzo before another server: real servers on loopback on both sides."""

from __future__ import annotations

import json
import socket
import time

import openai
import pytest
from mistralai.client import Mistral
from structlog.testing import capture_logs
from tests.backends.fronts import (
    UPSTREAM_KEY,
    answer_of,
    entry_of,
    front_of,
    name_of,
    send,
    stream_of,
    text_of,
)
from tests.backends.scripted_upstream import (
    DONE,
    VLLM_MODELS,
    ScriptedUpstream,
    chunk,
    event,
    scripted_upstream,
    totals,
    usage,
)
from tests.fakes import Script
from tests.server.live import (
    KEY,
    MODEL,
    LiveServer,
    assert_error,
    chat,
    events_of,
    wait_for_record,
    wait_until,
)

from mezzo.backends.base import BackendUnavailable
from mezzo.backends.upstream import backend as upstream_backend


class TestMezzoBeforeMezzo:
    """Both dialects are Mistral's."""

    def test_an_answer_is_the_upstreams_with_its_counts(self, behind: LiveServer, front: LiveServer) -> None:
        behind.backend.script = Script(text="Bonjour à tous", cached_tokens=1)
        answer = answer_of(front)
        assert answer["choices"][0]["message"]["content"] == "Bonjour à tous"
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["model"] == MODEL
        assert answer["usage"] == answer_of(behind)["usage"]
        assert answer["usage"]["completion_tokens"] == 15
        assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}
        entered = entry_of(front, answer["id"])
        assert (entered.prompt_tokens, entered.cached_tokens, entered.completion_tokens) == (2, 1, 15)
        assert (entered.is_estimated, entered.status, entered.weights) == (False, "finished", name_of(front))

    def test_a_stream_is_passed_on_as_it_comes(self, behind: LiveServer, front: LiveServer) -> None:
        behind.backend.script = Script(text="abc", step_s=0.05)
        with front.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
            times = [time.monotonic() for line in response.iter_lines() if '"content":"' in line]
        assert times[2] - times[1] > 0.02
        behind.backend.script = Script(text="Bonjour à tous", step_s=0.002)
        chunks = stream_of(front)
        assert text_of(chunks) == "Bonjour à tous"
        assert [one for one in chunks if "usage" in one] == [chunks[-1]]
        assert chunks[-1]["usage"]["total_tokens"] == 17

    @pytest.mark.parametrize("stream", [False, True])
    def test_choices_limits_and_prefix(self, behind: LiveServer, front: LiveServer, stream: bool) -> None:
        messages = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "So ", "prefix": True},
        ]
        body = {"messages": messages, "n": 2, "max_tokens": 4}
        if stream:
            chunks = stream_of(front, **body)
            texts = [text_of(chunks, index) for index in (0, 1)]
            reasons = {c["choices"][0]["finish_reason"] for c in chunks} - {None}
            counted = chunks[-1]["usage"]
        else:
            answer = answer_of(front, **body)
            texts = [choice["message"]["content"] for choice in answer["choices"]]
            reasons = {choice["finish_reason"] for choice in answer["choices"]}
            counted = answer["usage"]
        assert texts == ["So Hell", "So Hell"]
        assert reasons == {"length"}
        assert (counted["prompt_tokens"], counted["completion_tokens"]) == (5, 8)

    def test_the_official_sdk_sees_no_difference(self, behind: LiveServer, front: LiveServer) -> None:
        messages = [{"role": "user", "content": "Hi"}]
        with Mistral(api_key=KEY, server_url=front.url) as client:
            answer = client.chat.complete(model=MODEL, messages=messages, temperature=0.1, random_seed=1)
            assert answer.choices[0].message.content == "Hello!"
            assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 6)
            with client.chat.stream(model=MODEL, messages=messages) as stream:
                chunks = [one.data for one in stream]
            assert "".join(one.choices[0].delta.content for one in chunks) == "Hello!"
            assert chunks[-1].usage.total_tokens == 8

    def test_openais_sdk_works_too(self, behind: LiveServer, front: LiveServer) -> None:
        with openai.OpenAI(api_key=KEY, base_url=front.url + "/v1") as client:
            answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
        assert answer.choices[0].message.content == "Hello!"

    def test_the_card_is_cut_down_to_what_the_upstream_says(self, front: LiveServer) -> None:
        (card,) = (c for c in front.client.get("/v1/models").json()["data"] if c["id"] == MODEL)
        assert card["max_context_length"] == 4096
        assert card["capabilities"]["vision"]
        assert card["capabilities"]["function_calling"]
        assert "upstream 127.0.0.1:" in card["description"]

    def test_a_text_is_filled_in_where_the_upstream_can(self, behind: LiveServer, front: LiveServer) -> None:
        response = front.client.post(
            "/v1/fim/completions", json={"model": MODEL, "prompt": "def f(", "suffix": "return x"}
        )
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["message"]["content"] == "Hello!"
        assert response.json()["usage"]["prompt_tokens"] == 14

    def test_files_are_passed_on_unread(self, behind: LiveServer, front: LiveServer) -> None:
        behind.backend.attachments.clear()
        pixel = (
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
        )
        image = {"type": "image_url", "image_url": f"data:image/png;base64,{pixel}"}
        document = {"type": "document_url", "document_url": "data:text/plain,hello", "document_name": "a.txt"}
        answer_of(front, content=[image, document])
        (attachments,) = behind.backend.attachments
        assert [len(parts) for parts in attachments.by_position.values()] == [1, 1]
        broken = {"type": "image_url", "image_url": "data:image/png;base64,AAAA"}
        refused = assert_error(front.post(chat([broken])), 400, code="3310", param="messages")
        assert refused["message"] == assert_error(behind.post(chat([broken])), 400)["message"]

    @pytest.mark.parametrize(
        "url",
        [
            "http://10.0.0.1/a.png",
            "http://169.254.169.254/latest",
            "http://localhost/a.png",
            "http://metadata.google.internal/",
            "http://redis:6379/",
            "http://example.org:8000/a.png",
            "file:///etc/passwd",
        ],
    )
    def test_urls_of_the_inside_are_not_passed_on(self, front: LiveServer, url: str) -> None:
        body = assert_error(
            front.post(chat([{"type": "image_url", "image_url": {"url": url}}])), 400, code="3310"
        )
        assert body["message"].startswith("messages[0].content[0]: ")


class TestMezzoFailing:
    def test_a_refusal_is_told_in_the_upstreams_words(self, behind: LiveServer, front: LiveServer) -> None:
        body = assert_error(front.post(chat("x" * 5000)), 400, code="3051")
        assert "too large for model with 4096 maximum context length" in body["message"]

    def test_a_full_upstream_is_503_with_its_time(self, behind: LiveServer, front: LiveServer) -> None:
        behind.backend.script = Script(refusal=BackendUnavailable("full", retry_after_s=7))
        response = front.post(chat())
        assert_error(response, 503, code="3800")
        assert response.headers["retry-after"] == "7"

    def test_an_engine_that_dies_is_told_in_both_modes(self, behind: LiveServer, front: LiveServer) -> None:
        behind.backend.script = Script(text="abcdef", fail_at_step=3)
        with capture_logs() as logs:
            assert_error(front.post(chat()), 503, code="3800")
            assert wait_for_record(logs, status=503, route="/v1/chat/completions", weights=name_of(front))[
                "outcome"
            ] == ("failed")
        chunks = stream_of(front)
        assert text_of(chunks) == "abc"
        assert chunks[-1]["choices"][0]["finish_reason"] == "error"
        assert chunks[-1]["usage"]["completion_tokens"] == 3

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_upstream_learns_that_the_client_left(
        self, behind: LiveServer, front: LiveServer, stream: bool
    ) -> None:
        behind.backend.script = Script(text="x" * 1000, step_s=0.01)
        with capture_logs() as logs:
            connection = send(front, chat(stream=stream))
            wait_until(lambda: behind.backend.generations)
            (generation,) = behind.backend.generations
            wait_until(lambda: generation.num_tokens >= 10)
            connection.close()
            assert generation.closed_early.wait(1)
            record = wait_for_record(logs, outcome="aborted", weights=name_of(front))
        assert record["is_estimated"] is True
        entered = entry_of(front, record["request_id"])
        assert (entered.is_estimated, entered.status) == (True, "aborted")
        assert entered.completion_tokens == record["completion_tokens"]
        # An event of the upstream may hold several of its tokens, never a part of one.
        assert 1 <= record["completion_tokens"] <= generation.num_tokens
        assert record["prompt_tokens"] >= 1
        assert front.gateway.num_running == 0
        wait_until(lambda: front.backend.stats().num_running == 0)

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_client_that_leaves_before_the_answer_begins(
        self, behind: LiveServer, front: LiveServer, stream: bool
    ) -> None:
        behind.backend.script = Script(submit_s=30)
        num_submits, num_cancelled = behind.backend.num_submits, behind.backend.num_cancelled_submits
        connection = send(front, chat(stream=stream))
        wait_until(lambda: behind.backend.num_submits > num_submits)
        connection.close()
        wait_until(lambda: behind.backend.num_cancelled_submits == num_cancelled + 1)
        wait_until(lambda: front.backend.stats().num_running == 0)

    def test_a_wrong_key_is_the_operators_matter(self, behind: LiveServer) -> None:
        with capture_logs() as logs, front_of(behind.url + "/v1", model=MODEL) as front:
            assert_error(front.post(chat()), 503, code="3800")
            assert front.client.get("/readyz").status_code == 503
        reasons = [entry["reason"] for entry in logs if "reason" in entry]
        assert any("HTTP 401" in reason for reason in reasons)
        assert UPSTREAM_KEY not in json.dumps(logs, default=str)


class TestAbsence:
    def test_a_server_that_is_not_there_is_found_when_it_comes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(upstream_backend, "PROBE_INTERVAL_S", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        with front_of(f"http://127.0.0.1:{port}/v1") as front:
            assert_error(front.post(chat()), 503, code="3800")
            assert front.client.get("/readyz").json()["reason"] == f"not ready: 127.0.0.1:{port}#there"
            with scripted_upstream(port) as upstream:
                upstream.models = VLLM_MODELS
                upstream.script = [chunk("Hello!", "stop", **usage(1, 1)), totals(1, 1), DONE]
                wait_until(lambda: front.client.get("/readyz").status_code == 200)
                assert answer_of(front)["choices"][0]["message"]["content"] == "Hello!"
                assert upstream.bodies[0]["stream_options"]["continuous_usage_stats"] is True
            assert_error(front.post(chat()), 503)
            assert front.client.get("/readyz").status_code == 503

    def test_silence_is_given_up(self, scripted: ScriptedUpstream) -> None:
        with front_of(scripted.base_url, upstream_timeout_s=0.2) as front:
            scripted.script = [5.0]
            assert_error(front.post(chat()), 503)
            assert scripted.hung_up.wait(1)
            scripted.script = [chunk("a"), 5.0]
            chunks = stream_of(front)
        assert text_of(chunks) == "a"
        assert chunks[-1]["choices"][0]["finish_reason"] == "error"

    def test_a_stream_is_opened_while_the_upstream_takes_its_time(
        self, scripted: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upstream_backend, "FIRST_CHUNK_TIMEOUT_S", 0.05)
        monkeypatch.setattr("mezzo.server.answer.FIRST_EVENT_TIMEOUT_S", 0.05)
        with front_of(scripted.base_url, keep_alive_s=0.1) as front:
            scripted.script = [0.4, chunk("late", "stop", **usage(1, 1)), DONE]
            response = front.post(chat(stream=True))
            assert ": ping" in response.text
            assert "late" in response.text
            # Too late for a status, the same refusal ends the stream.
            scripted.script = [0.4, event({"error": {"message": "no", "code": 400}})]
            last = json.loads(events_of(front.post(chat(stream=True)).text)[-2])
            assert last["choices"][0]["finish_reason"] == "error"

    def test_a_server_that_stops_ends_what_runs(self, scripted: ScriptedUpstream) -> None:
        scripted.script = [chunk("a"), 30.0]
        with front_of(scripted.base_url, shutdown_grace_s=0.1) as front:
            with front.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
                lines = response.iter_lines()
                next(lines)
                front.request_stop()
                rest = "".join(lines)
            assert '"finish_reason":"error"' in rest
        assert scripted.hung_up.wait(1)
