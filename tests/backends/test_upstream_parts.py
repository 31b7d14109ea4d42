"""The pieces of the upstream backend that need no server."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.prompt.mistral.requests import SHAPES, attachments, image, request, user
from tests.prompt.mistral.tokenizers import encoder

from mezzo.backends.upstream.bounds import prompt_token_bound, prompt_token_estimate
from mezzo.backends.upstream.choice import ChoiceReader
from mezzo.backends.upstream.facts import UpstreamFacts, read_facts
from mezzo.backends.upstream.sse import EventReader, EventTooLarge
from mezzo.backends.upstream.wire import Delta
from mezzo.prompt.output import text_of_pieces
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import DomainError
from mezzo.protocol.fim import FimCompletionRequest

LINES = [
    b"data: a",
    b"data:b",
    b"data:  c",
    b": comment",
    b"event: x",
    b"",
    b"data: \xc3\xa9",
    b"data:",
    b"junk",
]


class TestEventReader:
    @given(st.lists(st.sampled_from(LINES), max_size=12), st.booleans(), st.randoms(use_true_random=False))
    def test_events_do_not_depend_on_how_they_arrive(
        self, lines: list[bytes], has_returns: bool, rng: random.Random
    ) -> None:
        end = b"\r\n" if has_returns else b"\n"
        stream = b"".join(line + end for line in lines)
        expected, data = [], []
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                expected.append(b"\n".join(data))
                data = []
        reader, events, position = EventReader(1000), [], 0
        while position < len(stream):
            size = rng.randint(1, 9)
            events += reader.feed(stream[position : position + size])
            position += size
        assert events == expected

    @pytest.mark.parametrize("piece", [b"x", b"data: x\n", b"data:\n"], ids=["line", "event", "nothing"])
    def test_what_is_held_is_bounded(self, piece: bytes) -> None:
        def feed(times: int) -> None:
            reader = EventReader(100)
            for _ in range(times):
                assert reader.feed(piece) == []

        feed(45)
        with pytest.raises(EventTooLarge):
            feed(101)

    def test_comments_are_not_held(self) -> None:
        reader = EventReader(100)
        for _ in range(1000):
            assert reader.feed(b": ping\n\n") == []

    def test_the_bound_is_for_each_event(self) -> None:
        reader = EventReader(100)
        assert reader.feed((b"data: " + b"x" * 80 + b"\n\n") * 50) == [b"x" * 80] * 50


class TestPrefix:
    @pytest.mark.parametrize(
        ("texts", "shown"),
        [
            (["So ", "what"], "what"),
            (["S", "o", " ", "w"], "w"),
            (["So what"], "what"),
            (["So", "mething"], "Something"),
            (["What"], "What"),
            (["S"], "S"),
            ([], ""),
            (["So So "], "So "),
        ],
    )
    def test_a_repeated_prefix_is_left_out_once(self, texts: list[str], shown: str) -> None:
        reader = ChoiceReader("So ")
        pieces = [piece for text in texts for piece in reader.read(Delta(content=text))]
        rest, reason = reader.finish("stop")
        assert text_of_pieces([*pieces, *rest]) == shown
        assert reason == "stop"


class TestFacts:
    @pytest.mark.parametrize(
        ("listed", "facts"),
        [
            (b"<html>", UpstreamFacts()),
            (b'{"data": 3}', UpstreamFacts()),
            (b'{"data": []}', UpstreamFacts()),
            (b'{"data": [{"id": "m"}]}', UpstreamFacts(dialect="openai", is_listed=True)),
            (
                b'{"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 9}]}',
                UpstreamFacts(dialect="openai", is_vllm=True, is_listed=True, max_context_length=9),
            ),
            (
                b'{"data": [{"id": "x", "capabilities": {}}, {"id": "y", "aliases": ["m"], "max_context_length": 7, '
                b'"capabilities": {"vision": true, "ocr": false, "audio": "yes"}}]}',
                UpstreamFacts(is_listed=True, max_context_length=7, capabilities=frozenset({"vision"})),
            ),
            (b'{"data": [{"id": "other", "capabilities": {"vision": true}}]}', UpstreamFacts()),
        ],
    )  # fmt: skip
    def test_are_read_from_the_list_of_models(self, listed: bytes, facts: UpstreamFacts) -> None:
        assert read_facts(listed, "m") == facts


class TestBounds:
    @pytest.mark.parametrize("name", ["sentencepiece-v3", "tekken-v13"])
    def test_no_prompt_has_more_tokens_than_its_bound(self, name: str) -> None:
        compared = 0
        for shape, wire in SHAPES.items():
            asked = request(**wire)
            try:
                num_tokens = len(encoder(name).encode(asked, attachments(wire)).token_ids)
            except DomainError:
                continue  # a shape that this format does not have
            # The share for a template's own words is for other templates, and for the safety prompt.
            own_words = 0 if asked.safe_prompt else 1024
            assert num_tokens <= prompt_token_bound(asked) - own_words, shape
            compared += 1
        assert compared > 30

    def test_text_counts_by_its_bytes(self) -> None:
        def bound(content: Any, **fields: Any) -> int:
            return prompt_token_bound(request(messages=[user(content)], **fields))

        empty = bound("")
        assert empty == 16 + 1024
        assert bound("a" * 100) == empty + 100
        assert bound("é" * 100) == empty + 200
        assert bound([{"type": "text", "text": "🙂"}]) == empty + 4
        assert bound([image()]) == empty + 3080
        document = {"type": "document_url", "document_url": "https://example.org/a.pdf"}
        assert bound([document]) > 262144
        parameters = {"type": "object", "properties": {"é": {"type": "string"}}}
        tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
        assert bound("", tools=tools) >= empty + len(json.dumps(tools, indent=4))
        schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": parameters}}
        assert bound("", response_format=schema) > empty + len(json.dumps(parameters))

    def test_a_gap_counts_both_sides(self) -> None:
        fim = FimCompletionRequest(model="m", prompt="ab", suffix="é")
        assert prompt_token_bound(fim) == 4 + 16
        assert prompt_token_estimate(fim) == 2

    def test_an_estimate_is_near_and_never_nothing(self) -> None:
        text = "The quick brown fox jumps over the lazy dog, and then it goes home. " * 50
        asked = ChatCompletionRequest.model_validate({"model": "m", "messages": [user(text)]})
        assert 0.6 < prompt_token_estimate(asked) / (14.5 * 50) < 1.6  # 14 or 15 tokens in usual vocabularies
        assert prompt_token_estimate(request(messages=[user("")])) == 1
        assert prompt_token_estimate(request(messages=[user([image()])])) > 1000
