"""Upstreams that break off, make no sense, or refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.backends.fronts import (
    UPSTREAM_KEY,
    answer_of,
    stream_of,
    text_of,
)
from tests.backends.scripted_upstream import (
    DONE,
    ScriptedUpstream,
    chunk,
    event,
    scripted_upstream,
    totals,
    usage,
)
from tests.server.live import (
    LiveServer,
    assert_error,
    chat,
    wait_until,
)

BROKEN = {
    "ends early": [],
    "is cut": [None],
    "is no JSON": [b"data: {oops\n\n"],
    "is no UTF-8": [b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n'],
    "has half a character": [b'data: {"choices":[{"index":0,"delta":{"content":"\\ud800"}}]}\n\n'],
    "is of another shape": [b'data: {"choices":[{"index":0,"delta":"a"}]}\n\n'],
    "is deep": [b"data: " + b'{"error":[' + b"[" * 100_000 + b"\n\n"],
    "has a choice too many": [chunk("x", index=1)],
    "counts below zero": [chunk("x", **usage(-1, 1))],
    "counts beyond belief": [chunk("x", **usage(1, 10**30))],
    "is too large": [b"data: " + b"x" * (5 * 1024 * 1024)],
    "has a call without a name": [chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})],
    "has an unknown part": [chunk({"content": [{"type": "hologram"}]})],
    "has an error": [event({"error": {"message": "CUDA error", "code": 500}})],
    "has Mistral's error": [event({"object": "error", "message": "no", "type": "x", "code": "3000"})],
}


class TestBroken:
    @pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
    def test_what_makes_no_sense_is_a_failure_and_nothing_is_lost(
        self, scripted: ScriptedUpstream, openai_front: LiveServer, script: list[Any]
    ) -> None:
        scripted.script = [chunk("so far"), *script]
        with capture_logs() as logs:
            assert_error(openai_front.post(chat()), 503, code="3800", message="Service unavailable.")
            chunks = stream_of(openai_front)
        assert text_of(chunks) == "so far"
        assert chunks[-1]["choices"][0]["finish_reason"] == "error"
        assert chunks[-1]["usage"]["completion_tokens"] >= 1
        assert not [entry for entry in logs if "unexpected" in entry["event"]]
        wait_until(lambda: openai_front.backend.stats().num_running == 0)

    @pytest.mark.parametrize("script", [v for k, v in BROKEN.items() if k != "has a choice too many"])
    def test_before_the_first_event_it_is_a_status(
        self, scripted: ScriptedUpstream, openai_front: LiveServer, script: list[Any]
    ) -> None:
        scripted.script = script
        assert_error(openai_front.post(chat(stream=True)), 503, code="3800")

    def test_a_refusal_inside_the_stream_is_one(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        error = {"message": "max_tokens is too large", "type": "BadRequestError", "code": 400}
        scripted.script = [event({"error": error}), DONE]
        assert_error(openai_front.post(chat(stream=True)), 400, message="max_tokens is too large")

    def test_content_after_the_end_is_a_failure(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        scripted.script = [chunk("a", "stop"), chunk("b"), DONE]
        assert_error(openai_front.post(chat()), 503)

    def test_an_answer_whose_usage_is_lost_is_whole(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        scripted.script = [chunk("a"), chunk("b", "stop"), None]
        assert answer_of(openai_front)["usage"]["completion_tokens"] == 2

    def test_a_filter_and_an_unknown_reason_are_no_end(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        for reason in ("content_filter", "mystery"):
            scripted.script = [chunk("a"), chunk({}, reason), totals(1, 1), DONE]
            assert stream_of(openai_front)[-1]["choices"][0]["finish_reason"] == "error"

    def test_an_upstream_that_does_not_stream_is_unavailable(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        scripted.headers, headers = "Content-Type: application/json\r\n", scripted.headers
        scripted.body = b'{"choices": []}'
        try:
            assert_error(openai_front.post(chat()), 503)
        finally:
            scripted.headers = headers


class TestStatuses:
    @pytest.fixture
    def refusing(self, scripted: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
        headers, scripted.body = scripted.headers, b"{}"
        yield scripted
        scripted.headers = headers

    @pytest.mark.parametrize(
        ("status", "answered"),
        [
            (400, 400), (404, 400), (413, 413), (415, 400), (422, 400),
            (401, 503), (402, 503), (403, 503), (408, 503), (409, 503), (429, 503),
            (500, 503), (502, 503), (503, 503), (504, 503), (204, 503), (302, 503),
        ],
    )  # fmt: skip
    def test_each_has_its_answer(
        self,
        refusing: ScriptedUpstream,
        openai_front: LiveServer,
        status: int,
        answered: int,
    ) -> None:
        refusing.status, refusing.headers = status, "Content-Type: application/json\r\n"
        refusing.body = b'{"error": {"message": "because"}}' if status != 204 else b""
        body = assert_error(openai_front.post(chat(stream=status % 2 == 0)), answered)
        assert body["message"] == ("because" if answered < 500 else "Service unavailable.")
        assert openai_front.client.get("/readyz").status_code == 200

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"object": "error", "message": "plain", "type": "invalid_request_file"}, "plain"),
            ({"detail": "text"}, "text"),
            (
                {"detail": [{"loc": ["body", "n"], "msg": "too many"}, {"msg": "and"}, 3]},
                "n: too many; and; 3",
            ),
            ({"message": {"detail": [{"loc": ["body", "messages", 0], "msg": "bad"}]}}, "messages.0: bad"),
            ({"error": "words"}, "words"),
            ({"error": {"message": "x" * 5000}}, "x" * 999 + "…"),
            ({"error": {"message": f"no {UPSTREAM_KEY} here"}}, "no … here"),
            ([1], "the upstream answered HTTP 400"),
            ({"message": 3}, "the upstream answered HTTP 400"),
            ("x" * 100_000, "the upstream answered HTTP 400"),
        ],
    )
    def test_messages_are_found_in_every_form_and_bounded(
        self, refusing: ScriptedUpstream, openai_front: LiveServer, body: Any, message: str
    ) -> None:
        refusing.status, refusing.body = 400, json.dumps(body).encode()
        refusing.headers = "Content-Type: application/json\r\n"
        told = assert_error(openai_front.post(chat()), 400)
        assert told["message"] == message
        is_file = isinstance(body, dict) and body.get("type") == "invalid_request_file"
        assert told["code"] == ("3310" if is_file else "3051")

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ("7", "7"),
            ("99", "30"),
            ("0", "1"),
            ("Wed, 21 Oct 2026 07:28:00 GMT", "1"),
            ("²", "1"),
            ("-5", "1"),
        ],
    )
    def test_the_time_to_wait_is_passed_on_within_bounds(
        self, refusing: ScriptedUpstream, openai_front: LiveServer, given: str, told: str
    ) -> None:
        refusing.status, refusing.headers = 429, f"Retry-After: {given}\r\n"
        response = openai_front.post(chat())
        assert_error(response, 503)
        assert response.headers["retry-after"] == told

    def test_redirects_are_not_followed(self, refusing: ScriptedUpstream, openai_front: LiveServer) -> None:
        with scripted_upstream() as elsewhere:
            for status in (301, 302, 303, 307, 308):
                refusing.status = status
                refusing.headers = f"Location: {elsewhere.base_url}/chat/completions\r\n"
                assert_error(openai_front.post(chat()), 503)
            assert elsewhere.num_connections == 0
