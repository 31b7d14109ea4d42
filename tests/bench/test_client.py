"""The benchmark client against a real server with scripted streams."""

from __future__ import annotations

import pytest

from mezzo.bench.client import ChatRequest, Message, Target, stream_chat, user_request
from tests.bench.events import DONE, event, usage
from tests.bench.scripted_server import ScriptedServer


def target(server: ScriptedServer, **options: object) -> Target:
    return Target("scripted", server.url, "nano", **options)  # type: ignore[arg-type]


async def test_times_start_at_the_request_and_are_taken_per_event_with_text(scripted: ScriptedServer) -> None:
    scripted.script = [
        event(""), 0.10, event("Once"), 0.05, event(" upon"), event(None, "length", **usage(7, 2)), DONE,
    ]  # fmt: skip
    sample = await stream_chat(target(scripted), user_request("Tell", max_tokens=2))
    assert sample.failure is None
    assert sample.text == "Once upon"
    assert (sample.prompt_tokens, sample.completion_tokens, sample.finish_reason) == (7, 2, "length")
    # Sleeps never end early, and lateness moves the later events with it: no upper bound is needed.
    assert len(sample.event_times_s) == 2
    assert sample.ttft_s >= 0.10
    assert sample.gaps_s == [sample.event_times_s[1] - sample.event_times_s[0]]
    assert sample.gaps_s[0] >= 0.05
    assert sample.e2e_s >= sample.event_times_s[-1]


async def test_the_request_is_the_same_for_every_server(scripted: ScriptedServer) -> None:
    scripted.script = [event("a", "stop", **usage(1, 1)), DONE]
    await stream_chat(target(scripted, key="secret"), user_request("Bonjour à tous", max_tokens=5))
    assert scripted.bodies == [
        {
            "model": "nano",
            "messages": [{"role": "user", "content": "Bonjour à tous"}],
            "max_tokens": 5,
            "temperature": 0.0,
            "stream": True,
        }
    ]
    assert b"\r\nAuthorization: Bearer secret\r\n" in scripted.heads[0]


async def test_usage_is_asked_for_only_where_a_server_needs_it(scripted: ScriptedServer) -> None:
    only_usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    scripted.script = [event("a", "stop"), only_usage, DONE]
    sample = await stream_chat(target(scripted, dialect="openai"), user_request("Hi", max_tokens=1))
    assert scripted.bodies[0]["stream_options"] == {"include_usage": True}
    assert sample.completion_tokens == 1


async def test_events_split_and_joined_by_the_network_are_read_once_each(scripted: ScriptedServer) -> None:
    stream = event("é") + b": ping\r\n\r\n" + event("b").replace(b"\n", b"\r\n") + event("c", "stop") + DONE
    scripted.script = [stream[i : i + 7] for i in range(0, len(stream), 7)]
    sample = await stream_chat(target(scripted), user_request("Hi", max_tokens=3))
    assert sample.failure is None
    assert sample.text == "ébc"
    assert len(sample.event_times_s) == 3


async def test_a_lone_token_without_text_counts_to_the_end(scripted: ScriptedServer) -> None:
    scripted.script = [0.05, event(None, "length", **usage(9, 1)), DONE]
    sample = await stream_chat(target(scripted), user_request("Hi", max_tokens=1))
    assert sample.failure is None
    assert sample.ttft_s == sample.e2e_s >= 0.05


@pytest.mark.parametrize(
    ("script", "kind", "detail"),
    [
        ([event("a"), None], "cut stream", "the connection ended before the stream did"),
        (
            [event("a", "stop", **usage(1, 1)), None],
            "cut stream",
            "the connection ended before the stream did",
        ),
        ([event("a")], "cut stream", "it ended without [DONE] or finish reason"),
        ([event("a"), event(None, "error"), DONE], "error in the stream", "the server ended it"),
        ([b'data: {"object":"error","message":"full"}\n\n', DONE], "error in the stream", '{"object"'),
        ([b'data: {"error":{"message":"full"}}\n\n', DONE], "error in the stream", '{"error"'),
        ([b"data: {nonsense\n\n", DONE], "unreadable response", ""),
    ],
)
async def test_a_broken_stream_is_an_error_and_no_exception(
    scripted: ScriptedServer, script: list[bytes | float | None], kind: str, detail: str
) -> None:
    scripted.script = script
    sample = await stream_chat(target(scripted), user_request("Hi", max_tokens=5))
    assert sample.failure is not None
    assert (sample.failure.kind, sample.failure.detail[: len(detail)]) == (kind, detail)


async def test_a_refusal_tells_status_and_body_and_never_the_key(scripted: ScriptedServer) -> None:
    scripted.status = b"422 Unprocessable Entity"
    scripted.script = [b'{"detail":"no secret-key here"}']
    sample = await stream_chat(target(scripted, key="secret-key"), user_request("Hi", 5))
    assert str(sample.failure) == 'HTTP 422: {"detail":"no *** here"}'
    assert "secret-key" not in repr(target(scripted, key="secret-key"))


async def test_a_long_refusal_is_cut(scripted: ScriptedServer) -> None:
    scripted.status = b"500 Internal Server Error"
    scripted.script = [b"x" * 150, b"y" * 150, b"z" * 150]
    sample = await stream_chat(target(scripted), user_request("Hi", 5))
    assert sample.failure is not None
    assert sample.failure.detail == "x" * 150 + "y" * 50


async def test_nobody_listening_is_a_failure(unused_tcp_port: int) -> None:
    sample = await stream_chat(
        Target("none", f"http://127.0.0.1:{unused_tcp_port}", "nano"), user_request("Hi", 1)
    )
    assert sample.failure is not None
    assert sample.failure.kind == "connection"
    assert "ConnectionRefusedError" in sample.failure.detail


async def test_a_server_that_falls_silent_is_a_timeout(scripted: ScriptedServer) -> None:
    scripted.script = [event("a"), 5.0]
    sample = await stream_chat(target(scripted, timeout_s=0.1), user_request("Hi", 5))
    assert str(sample.failure) == "timeout: no end after 0.1 s"
    assert 0.1 <= sample.e2e_s < 2
    assert sample.text == "a"


async def test_a_body_that_ends_well_after_its_finish_reason_needs_no_done(scripted: ScriptedServer) -> None:
    scripted.script = [event("a"), event(None, "stop", **usage(3, 2))]
    sample = await stream_chat(target(scripted), user_request("Hi", 5))
    assert sample.failure is None
    assert sample.completion_tokens == 2


async def test_cached_tokens_thoughts_and_parts_of_content_are_read(scripted: ScriptedServer) -> None:
    thought = b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n'
    parts = b'data: {"choices":[{"delta":{"content":[{"type":"text","text":"so"}]}}]}\n\n'
    used = {"prompt_tokens": 90, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 64}}
    scripted.script = [thought, parts, event(None, "stop", usage=used), DONE]
    sample = await stream_chat(target(scripted), user_request("Hi", 5))
    assert sample.failure is None
    assert (sample.text, len(sample.event_times_s), sample.cached_tokens) == ("so", 2, 64)


async def test_messages_and_prediction_go_out_as_the_api_has_them(scripted: ScriptedServer) -> None:
    scripted.script = [event("a", "stop", **usage(1, 1)), DONE]
    messages = (
        Message("system", "Be brief."),
        Message("user", [{"type": "text", "text": "Hi"}]),
        Message("assistant", "He", prefix=True),
    )
    await stream_chat(target(scripted, temperature=0.7), ChatRequest(messages, 5, prediction="Hello"))
    (body,) = scripted.bodies
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "He", "prefix": True},
    ]
    assert body["prediction"] == {"type": "content", "content": "Hello"}
    assert body["temperature"] == 0.7
