"""Answers in one piece: contents, headers, and what the records say of them."""

from __future__ import annotations

import base64
import re

from structlog.testing import capture_logs

from tests.fakes import FakeBackend, Script
from tests.server.live import (
    MODEL_ID,
    NOW,
    UUID7,
    LiveServer,
    assert_error,
    chat,
    live_server,
    wait_for_record,
)


def test_answer_has_the_shape_of_the_reference(server: LiveServer) -> None:
    response = server.post(chat("Hello"))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert UUID7.fullmatch(response.headers["mistral-correlation-id"])
    body = response.json()
    assert list(body) == ["id", "object", "created", "model", "choices", "usage"]
    assert re.fullmatch(r"[0-9a-f]{32}", body.pop("id"))
    assert body == {
        "object": "chat.completion",
        "created": int(NOW.timestamp()),
        "model": "mistral-medium-latest",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "tool_calls": None, "content": "Hello!"},
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 6,
            "total_tokens": 11,
            "prompt_tokens_details": {"cached_tokens": 0},
            "service_tier": "standard",
        },
    }


def test_choices_share_the_prompt_and_sum_their_completions(server: LiveServer) -> None:
    body = server.post(chat("Hello", n=3)).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["Hello!"] * 3
    assert body["usage"]["prompt_tokens"] == 5
    assert body["usage"]["completion_tokens"] == 18


def test_prefix_begins_the_answer(server: LiveServer) -> None:
    server.backend.script = Script(text="42.")
    body = server.post(
        {
            "model": MODEL_ID,
            "messages": [
                {"role": "user", "content": "6*7?"},
                {"role": "assistant", "content": "It is ", "prefix": True},
            ],
        }
    ).json()
    assert body["choices"][0]["message"]["content"] == "It is 42."
    assert body["usage"]["completion_tokens"] == 3


def test_prefix_in_chunks_begins_the_answer(server: LiveServer) -> None:
    chunks = [{"type": "text", "text": "It "}, {"type": "text", "text": "is "}]
    body = server.post(
        {
            "model": MODEL_ID,
            "messages": [
                {"role": "user", "content": "6*7?"},
                {"role": "assistant", "content": chunks, "prefix": True},
            ],
        }
    ).json()
    assert body["choices"][0]["message"]["content"] == "It is Hello!"


def test_max_tokens_ends_with_length(server: LiveServer) -> None:
    body = server.post(chat(max_tokens=3)).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"] == "Hel"


def test_cached_tokens_are_reported(server: LiveServer) -> None:
    server.backend.script = Script(cached_tokens=2)
    usage = server.post(chat("Hello")).json()["usage"]
    assert usage["prompt_tokens"] == 5
    assert usage["prompt_tokens_details"] == {"cached_tokens": 2}


def test_temperature_is_the_cards_unless_given(server: LiveServer) -> None:
    server.post(chat())
    server.post(chat(temperature=0))
    assert server.backend.temperatures[-2:] == [0.3, 0]


def test_text_in_many_scripts_arrives_whole(server: LiveServer) -> None:
    server.backend.script = Script(text="ключ 鍵 🔑 ñ")
    assert server.post(chat()).json()["choices"][0]["message"]["content"] == "ключ 鍵 🔑 ñ"


def test_deprecated_name_is_answered_by_its_replacement_which_headers_tell(server: LiveServer) -> None:
    response = server.post({**chat(), "model": "mistral-medium"})
    assert response.json()["model"] == "mistral-medium"
    assert response.headers["x-model-deprecation-timestamp"] == "2025-06-16T00:00:00Z"
    assert response.headers["deprecation"] == "@1732924800"
    assert response.headers["sunset"] == "Mon, 16 Jun 2025 00:00:00 GMT"
    assert response.headers["link"] == '</v1/models/mistral-medium-2505>; rel="successor-version"'
    assert response.headers["x-mezzo-served-by"] == "mistral-medium-2505"


def test_current_name_has_no_lifecycle_headers(server: LiveServer) -> None:
    headers = server.post(chat()).headers
    told = {"x-model-deprecation-timestamp", "deprecation", "sunset", "link", "x-mezzo-served-by"}
    assert not told & set(headers)


def test_rate_limit_headers_tell_what_is_left_after_this_request() -> None:
    with live_server(
        FakeBackend(Script(cached_tokens=2)), requests_per_minute=5, tokens_per_minute=100
    ) as live:
        headers = live.post(chat("Hello")).headers
        assert headers["x-ratelimit-limit-req-minute"] == "5"
        assert headers["x-ratelimit-remaining-req-minute"] == "4"
        assert headers["x-ratelimit-limit-tokens-minute"] == "100"
        # 5 prompt tokens, 2 of them cached, and 6 of completion.
        assert headers["x-ratelimit-tokens-query-cost"] == "9"
        assert headers["x-ratelimit-remaining-tokens-minute"] == "91"


def test_no_rate_limit_headers_without_limits(server: LiveServer) -> None:
    assert not [name for name in server.post(chat()).headers if name.startswith("x-ratelimit")]


def test_one_record_per_request_without_its_text(server: LiveServer) -> None:
    with capture_logs() as logs:
        response = server.post(chat("Top secret question"))
        record = wait_for_record(logs, request_id=response.json()["id"])
    assert record["correlation_id"] == response.headers["mistral-correlation-id"]
    assert record["model"] == "mistral-medium-latest"
    assert record["model_id"] == MODEL_ID
    assert record["weights"] == "fake"
    assert (record["prompt_tokens"], record["completion_tokens"], record["cached_tokens"]) == (19, 6, 0)
    assert (record["status"], record["outcome"], record["stream"]) == (200, "finished", False)
    assert 0 < record["ttft_s"] <= record["duration_s"]
    assert "secret" not in str(logs)
    assert "Hello!" not in str(logs)


def test_record_holds_text_when_asked_for() -> None:
    with live_server(log_prompts=True) as live, capture_logs() as logs:
        response = live.post(chat("Question", n=2))
        record = wait_for_record(logs, request_id=response.json()["id"])
    assert record["prompt"][0]["content"] == "Question"
    assert record["completion"] == ["Hello!", "Hello!"]


def test_record_holds_no_files() -> None:
    uri = "data:text/plain;base64," + base64.b64encode(b"the secret recipe " * 50).decode()
    content = [{"type": "text", "text": "Read"}, {"type": "document_url", "document_url": uri}]
    with live_server(log_prompts=True) as live, capture_logs() as logs:
        response = live.post(chat(content))
        record = wait_for_record(logs, request_id=response.json()["id"])
    (text, document) = record["prompt"][0]["content"]
    assert text["text"] == "Read"
    assert document["document_url"] == uri[:64] + "…"


def test_backend_gets_what_attachments_hold(server: LiveServer) -> None:
    uri = "data:text/markdown;base64," + base64.b64encode(b"# Menu").decode()
    content = [{"type": "text", "text": "Read"}, {"type": "document_url", "document_url": uri}]
    assert server.post(chat(content)).status_code == 200
    (part,) = server.backend.attachments[-1].parts(0, 1)
    assert "# Menu" in part.text


def test_nothing_is_fetched_for_a_request_that_is_refused(server: LiveServer) -> None:
    """The fake's weights see nothing: that the URL is none either, nobody looks."""
    content = [{"type": "image_url", "image_url": "data:image/png;base64,%%%"}]
    body = assert_error(server.post(chat(content)), 400, code="3051", param="messages")
    assert "image_url content is not enabled for this model" in body["message"]


def test_refused_request_is_recorded_too(server: LiveServer) -> None:
    with capture_logs() as logs:
        server.post({**chat(), "model": "nope"})
        record = wait_for_record(logs, model="nope")
    assert (record["status"], record["outcome"], record["completion_tokens"]) == (400, "refused", 0)


def test_metrics_count_what_was_used(server: LiveServer) -> None:
    before = server.metric("mezzo_tokens_total", model=MODEL_ID, kind="completion")
    server.post(chat("Hello", n=2))
    assert server.metric("mezzo_tokens_total", model=MODEL_ID, kind="completion") - before == 12
    assert (
        server.metric("mezzo_requests_total", route="/v1/chat/completions", model=MODEL_ID, status="200") >= 1
    )
    assert server.metric("mezzo_time_to_first_token_seconds_count", model=MODEL_ID) >= 1
    assert server.metric("mezzo_inter_token_latency_seconds_count", model=MODEL_ID) >= 5
