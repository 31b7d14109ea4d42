"""The benchmark client against a real server with scripted streams."""

from __future__ import annotations

import pytest
from benchmarks.client import Target, stream_chat

from tests.benchmarks.conftest import ScriptedServer
from tests.benchmarks.events import DONE, event, usage


def target(server: ScriptedServer, **options: object) -> Target:
    return Target("scripted", server.url, "nano", **options)  # type: ignore[arg-type]


async def test_times_start_at_the_request_and_are_taken_per_event_with_text(scripted: ScriptedServer) -> None:
    scripted.script = [
        event(""), 0.10, event("Once"), 0.05, event(" upon"), event(None, "length", **usage(7, 2)), DONE,
    ]  # fmt: skip
    sample = await stream_chat(target(scripted), "Tell", max_tokens=2)
    assert sample.error is None
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
    await stream_chat(target(scripted, key="secret"), "Bonjour à tous", max_tokens=5)
    assert scripted.bodies == [
        {
            "model": "nano",
            "messages": [{"role": "user", "content": "Bonjour à tous"}],
            "max_tokens": 5,
            "temperature": 0,
            "stream": True,
        }
    ]
    assert b"\r\nAuthorization: Bearer secret\r\n" in scripted.heads[0]


async def test_usage_is_asked_for_only_where_a_server_needs_it(scripted: ScriptedServer) -> None:
    only_usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    scripted.script = [event("a", "stop"), only_usage, DONE]
    sample = await stream_chat(target(scripted, include_usage=True), "Hi", max_tokens=1)
    assert scripted.bodies[0]["stream_options"] == {"include_usage": True}
    assert sample.completion_tokens == 1


async def test_events_split_and_joined_by_the_network_are_read_once_each(scripted: ScriptedServer) -> None:
    stream = event("é") + b": ping\r\n\r\n" + event("b").replace(b"\n", b"\r\n") + event("c", "stop") + DONE
    scripted.script = [stream[i : i + 7] for i in range(0, len(stream), 7)]
    sample = await stream_chat(target(scripted), "Hi", max_tokens=3)
    assert sample.error is None
    assert sample.text == "ébc"
    assert len(sample.event_times_s) == 3


async def test_a_lone_token_without_text_counts_to_the_end(scripted: ScriptedServer) -> None:
    scripted.script = [0.05, event(None, "length", **usage(9, 1)), DONE]
    sample = await stream_chat(target(scripted), "Hi", max_tokens=1)
    assert sample.error is None
    assert sample.ttft_s == sample.e2e_s >= 0.05


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([event("a"), None], "the connection ended before the stream did"),
        ([event("a", "stop")], "the stream ended without [DONE]"),
        ([event("a"), event(None, "error"), DONE], "the server ended the stream with finish_reason error"),
        ([b'data: {"object":"error","message":"full"}\n\n', DONE], "error in the stream"),
        ([b'data: {"error":{"message":"full"}}\n\n', DONE], "error in the stream"),
        ([b"data: {nonsense\n\n", DONE], "unreadable response"),
    ],
)
async def test_a_broken_stream_is_an_error_and_no_exception(
    scripted: ScriptedServer, script: list[bytes | float | None], error: str
) -> None:
    scripted.script = script
    sample = await stream_chat(target(scripted), "Hi", max_tokens=5)
    assert sample.error is not None
    assert sample.error.startswith(error)


async def test_a_refusal_tells_status_and_body(scripted: ScriptedServer) -> None:
    scripted.status = b"422 Unprocessable Entity"
    scripted.script = [b'{"detail":"no"}']
    sample = await stream_chat(target(scripted), "Hi", max_tokens=5)
    assert sample.error == 'HTTP 422: {"detail":"no"}'


async def test_nobody_listening_is_an_error(unused_tcp_port: int) -> None:
    sample = await stream_chat(Target("none", f"http://127.0.0.1:{unused_tcp_port}", "nano"), "Hi", 1)
    assert sample.error is not None
    assert "ConnectionRefusedError" in sample.error
