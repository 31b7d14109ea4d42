"""Streams, byte by byte."""

from __future__ import annotations

import json
import time

import httpx
import pytest

from mezzo.protocol.response import Usage
from mezzo.server.sse import PADDING_ALPHABET, ChunkWriter, no_padding, random_padding
from mezzo.server.terms import ChatTerms
from tests.fakes import FakeBackend, Script, delta, finished
from tests.metering.entries import PRICE
from tests.server.live import LiveServer, chat, events_of, live_server

USAGE = Usage.of(prompt_tokens=12, completion_tokens=3)


def make_writer(
    num_choices: int = 1, prefix: str = "", padding=no_padding, stream_tool_calls: bool = False
) -> ChunkWriter:
    terms = ChatTerms(
        id="5af4",
        created=1790000000,
        model="mistral-medium-latest",
        model_id="mistral-medium-2505",
        num_choices=num_choices,
        temperature=0.3,
        prefix=prefix,
        price=PRICE,
        stream_tool_calls=stream_tool_calls,
        headers={},
        json_headers={},
    )
    return ChunkWriter(terms, padding)


def frame(choice: str, rest: str = "") -> bytes:
    return (
        'data: {"id":"5af4","object":"chat.completion.chunk","created":1790000000,'
        '"model":"mistral-medium-latest","choices":[' + choice + "]" + rest + "}\n\n"
    ).encode()


USAGE_JSON = (
    ',"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15,'
    '"prompt_tokens_details":{"cached_tokens":0},"service_tier":"standard"}'
)


class TestChunkWriter:
    def test_frames_are_the_references_to_the_byte(self) -> None:
        writer = make_writer(padding=lambda: "abc")
        written = (
            writer.opening()
            + writer.frames([delta(0, "Par", 1)], USAGE)
            + writer.frames([finished(0, "is.", 2, "stop")], USAGE)
        )
        assert written == (
            frame('{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}')
            + frame('{"index":0,"delta":{"content":"Par"},"finish_reason":null}', ',"p":"abc"')
            + frame('{"index":0,"delta":{"content":"is."},"finish_reason":"stop"}', USAGE_JSON + ',"p":"abc"')
        )
        assert writer.is_complete

    def test_without_padding_the_key_is_absent(self) -> None:
        assert make_writer().frames([delta(0, "Par", 1)], USAGE) == frame(
            '{"index":0,"delta":{"content":"Par"},"finish_reason":null}'
        )

    def test_prefix_is_the_first_text_of_every_choice(self) -> None:
        opening = make_writer(num_choices=2, prefix="It is ").opening()
        assert opening == b"".join(
            [
                frame('{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}'),
                frame('{"index":1,"delta":{"role":"assistant","content":""},"finish_reason":null}'),
                frame('{"index":0,"delta":{"content":"It is "},"finish_reason":null}'),
                frame('{"index":1,"delta":{"content":"It is "},"finish_reason":null}'),
            ]
        )

    def test_events_of_a_choice_that_are_ready_together_are_one_chunk(self) -> None:
        events = [delta(0, "a", 1), delta(1, "x", 1), delta(0, "b", 1)]
        assert make_writer(num_choices=2).frames(events, USAGE) == frame(
            '{"index":0,"delta":{"content":"ab"},"finish_reason":null}'
        ) + frame('{"index":1,"delta":{"content":"x"},"finish_reason":null}')

    def test_event_without_text_is_no_chunk(self) -> None:
        assert make_writer().frames([delta(0, "", 1)], USAGE) == b""

    def test_usage_is_only_in_the_chunk_that_finishes_the_last_choice(self) -> None:
        writer = make_writer(num_choices=2)
        first = writer.frames([finished(1, "", 1, "length"), delta(0, "a", 1)], USAGE)
        assert b"usage" not in first
        assert writer.frames([finished(0, "b", 1, "stop")], USAGE) == frame(
            '{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}', USAGE_JSON
        )

    def test_failure_finishes_the_choices_that_are_open(self) -> None:
        writer = make_writer(num_choices=3)
        writer.frames([finished(1, "b", 1, "stop")], USAGE)
        assert writer.failure(USAGE) == frame(
            '{"index":0,"delta":{"content":""},"finish_reason":"error"}'
        ) + frame('{"index":2,"delta":{"content":""},"finish_reason":"error"}', USAGE_JSON)
        assert not writer.is_complete


def test_padding_is_a_beginning_of_the_alphabet_of_any_length() -> None:
    paddings = {random_padding() for _ in range(2000)}
    assert {len(padding) for padding in paddings} == set(range(1, 37))
    assert all(PADDING_ALPHABET.startswith(padding) for padding in paddings)


# --- through a server ---


@pytest.fixture(scope="module")
def unpadded():
    with live_server(FakeBackend(), stream_padding=False, keep_alive_s=0.15) as live:
        yield live


def test_stream_is_the_references_to_the_byte(unpadded: LiveServer) -> None:
    unpadded.backend.script = Script(text="Paris.", step_tokens=3, step_s=0.05)
    response = unpadded.post(chat("Capital?", stream=True))
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert "content-length" not in response.headers
    identifier = json.loads(events_of(response.text)[0])["id"]
    head = (
        f'data: {{"id":"{identifier}","object":"chat.completion.chunk","created":1788264000,'
        '"model":"mistral-medium-latest","choices":['
    )
    assert response.text == (
        head + '{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
        + head + '{"index":0,"delta":{"content":"Par"},"finish_reason":null}]}\n\n'
        + head + '{"index":0,"delta":{"content":"is."},"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":8,"completion_tokens":6,"total_tokens":14,'
        '"prompt_tokens_details":{"cached_tokens":0},"service_tier":"standard"}}\n\n'
        "data: [DONE]\n\n"
    )  # fmt: skip


def test_every_chunk_but_the_role_is_padded_by_default(server: LiveServer) -> None:
    events = events_of(server.post(chat(stream=True)).text)
    chunks = [json.loads(event) for event in events[:-1]]
    assert "p" not in chunks[0]
    assert all(PADDING_ALPHABET.startswith(chunk["p"]) and chunk["p"] for chunk in chunks[1:])


def test_choices_are_interleaved_and_add_up(unpadded: LiveServer) -> None:
    unpadded.backend.script = Script(text="abcdef", step_tokens=2, step_s=0.02)
    chunks = [json.loads(event) for event in events_of(unpadded.post(chat(n=2, stream=True)).text)[:-1]]
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks[:3]] == [
        "assistant",
        "assistant",
        None,
    ]
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    for index in (0, 1):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert "".join(choice["delta"]["content"] for choice in own) == "abcdef"
        assert [choice["finish_reason"] for choice in own] == [None] * (len(own) - 1) + ["stop"]
    assert [position for position, chunk in enumerate(chunks) if "usage" in chunk] == [len(chunks) - 1]
    assert chunks[-1]["usage"]["completion_tokens"] == 12


def test_prefix_makes_both_modes_the_same_text(unpadded: LiveServer) -> None:
    unpadded.backend.script = Script()
    body = chat()
    body["messages"].append({"role": "assistant", "content": "Well: ", "prefix": True})
    events = events_of(unpadded.post({**body, "stream": True}).text)[:-1]
    chunks = [json.loads(event)["choices"][0]["delta"]["content"] for event in events]
    assert chunks[1] == "Well: "
    assert "".join(chunks) == unpadded.post(body).json()["choices"][0]["message"]["content"] == "Well: Hello!"


def test_silence_is_filled_with_comments(unpadded: LiveServer) -> None:
    unpadded.backend.script = Script(text="ab", step_s=0.5)
    text = unpadded.post(chat(stream=True)).text
    assert "\n\n: ping\n\n" in text
    assert json.loads(events_of(text)[-2])["choices"][0]["finish_reason"] == "stop"


def test_event_without_text_is_not_sent(unpadded: LiveServer) -> None:
    unpadded.backend.script = Script(text="é", step_s=0.03)  # two tokens, the first is half a character
    events = events_of(unpadded.post(chat(stream=True)).text)
    assert [json.loads(event)["choices"][0]["delta"]["content"] for event in events[:-1]] == ["", "é"]
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 2


def test_engine_that_dies_midway_ends_the_stream_with_error(unpadded: LiveServer) -> None:
    unpadded.backend.script = Script(text="abcdef", step_s=0.02, fail_at_step=3)
    response = unpadded.post(chat(stream=True, n=2))
    assert response.status_code == 200
    events = events_of(response.text)
    assert events[-1] == "[DONE]"
    last = [json.loads(event) for event in events[-3:-1]]
    assert [chunk["choices"][0]["finish_reason"] for chunk in last] == ["error", "error"]
    assert "usage" not in last[0]
    assert last[1]["usage"]["completion_tokens"] == 6
    assert unpadded.metric("mezzo_chat_outcomes_total", outcome="failed") >= 1


def test_mistake_of_ours_midway_ends_the_stream_without_telling_details(unpadded: LiveServer) -> None:
    unpadded.backend.script = Script(text="abcdef", step_s=0.02, fault_at_step=2)
    text = unpadded.post(chat(stream=True)).text
    assert json.loads(events_of(text)[-2])["choices"][0]["finish_reason"] == "error"
    assert "secret" not in text


def test_failure_before_the_first_event_is_a_status(unpadded: LiveServer) -> None:
    unpadded.backend.script = Script(step_s=0.05, fail_at_step=0)
    response = unpadded.post(chat(stream=True))
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/json"
    assert response.json()["code"] == "3800"


def test_headers_are_sent_with_the_first_event_and_text_as_it_comes(unpadded: LiveServer) -> None:
    unpadded.backend.script = Script(text="abc", step_s=0.2)
    started = time.monotonic()
    arrivals = []
    with unpadded.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
        headers_s = time.monotonic() - started
        for line in response.iter_lines():
            if line.startswith("data: {"):
                arrivals.append(time.monotonic() - started)
    assert 0.15 < headers_s < 0.38
    assert arrivals[-1] - arrivals[1] > 0.3


def test_deprecated_name_in_a_stream_has_no_header_that_breaks_the_sdk(server: LiveServer) -> None:
    response = server.post({**chat(stream=True), "model": "mistral-medium-2312"})
    assert response.status_code == 200
    assert "x-model-deprecation-timestamp" not in response.headers
    assert response.headers["sunset"] == "Mon, 16 Jun 2025 00:00:00 GMT"
    assert response.headers["x-mezzo-served-by"] == "mistral-medium-2505"
    assert json.loads(events_of(response.text)[0])["model"] == "mistral-medium-2312"


def test_thirty_two_streams_at_once(server: LiveServer) -> None:
    server.backend.script = Script(text="0123456789" * 3, step_tokens=3, step_s=0.01)

    async def read_all() -> list[str]:
        import asyncio

        headers = dict(server.client.headers)
        async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False) as client:
            answers = await asyncio.gather(
                *(client.post("/v1/chat/completions", json=chat(stream=True)) for _ in range(32))
            )
        return [answer.text for answer in answers]

    import asyncio

    texts = asyncio.run(read_all())
    for text in texts:
        events = [json.loads(event) for event in events_of(text)[:-1]]
        assert "".join(event["choices"][0]["delta"]["content"] for event in events) == "0123456789" * 3
    assert server.gateway.num_running == 0
