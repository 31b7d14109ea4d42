"""From pieces to messages and to deltas: the same pieces tell the same, whole and streamed."""

from __future__ import annotations

import json

import msgspec
import pytest
from mistralai.client.models import AssistantMessage, DeltaMessage

from mezzo.prompt.output import Piece, TextPiece, ThinkingPiece, ToolCallArguments, ToolCallBegin
from mezzo.protocol.response import FinishReason
from mezzo.server.deltas import DeltaWriter
from mezzo.server.message import MessageBuilder

TEXT = [TextPiece("Par"), TextPiece("is.")]
THOUGHT = [ThinkingPiece("7 × "), ThinkingPiece("6"), ThinkingPiece("", closes=True), TextPiece("42")]
CALLS = [
    ToolCallBegin(0, "abcdefghi", "alpha"),
    ToolCallArguments(0, '{"v"'),
    ToolCallArguments(0, ": 1}"),
    ToolCallBegin(1, "ABCDEFGHI", "beta"),
    ToolCallArguments(1, "{}"),
]
ALPHA = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "alpha", "arguments": '{"v": 1}'},
    "index": 0,
}
BETA = {"id": "ABCDEFGHI", "type": "function", "function": {"name": "beta", "arguments": "{}"}, "index": 1}


def message(pieces: list[Piece], reason: FinishReason = "stop", prefix: str = "") -> dict:
    builder = MessageBuilder(prefix)
    builder.add(pieces)
    return json.loads(msgspec.json.encode(builder.message(reason)))


def deltas(
    *batches: list[Piece], reason: FinishReason = "stop", stream_tool_calls: bool = False
) -> list[dict]:
    """Return the deltas of a choice whose pieces came in batches; the last delta goes with the finish reason."""
    writer = DeltaWriter(stream_tool_calls=stream_tool_calls)
    written = [delta for batch in batches[:-1] for delta in writer.deltas(batch)]
    written += writer.last_deltas(writer.deltas(batches[-1]), reason)
    return json.loads(msgspec.json.encode(written))


def closing(text: str = "") -> dict:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}], "closed": True}


def thinking(text: str) -> dict:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


class TestMessage:
    def test_text_is_a_plain_string(self) -> None:
        assert message(TEXT, prefix="In ") == {
            "role": "assistant",
            "tool_calls": None,
            "content": "In Paris.",
        }

    def test_a_trace_and_text_are_two_chunks(self) -> None:
        assert message(THOUGHT)["content"] == [closing("7 × 6"), {"type": "text", "text": "42"}]

    def test_a_trace_without_text_is_one_chunk(self) -> None:
        assert message(THOUGHT[:2], "length")["content"] == [closing("7 × 6")]

    def test_calls_come_with_empty_text(self) -> None:
        assert message(CALLS, "tool_calls") == {
            "role": "assistant",
            "tool_calls": [ALPHA, BETA],
            "content": "",
        }

    def test_calls_that_were_cut_off_are_none(self) -> None:
        assert message(CALLS[:2], "length") == {"role": "assistant", "tool_calls": None, "content": ""}

    @pytest.mark.parametrize("pieces", [TEXT, THOUGHT, CALLS, THOUGHT[:3] + CALLS])
    def test_the_official_sdk_reads_it(self, pieces: list[Piece]) -> None:
        reason = "tool_calls" if CALLS[0] in pieces else "stop"
        parsed = AssistantMessage.model_validate(message(pieces, reason))
        assert bool(parsed.tool_calls) == (reason == "tool_calls")


class TestDeltas:
    def test_text_of_a_batch_is_one_delta(self) -> None:
        assert deltas(TEXT, [TextPiece("!")]) == [{"content": "Paris."}, {"content": "!"}]

    def test_an_end_without_text_has_empty_content(self) -> None:
        assert deltas(TEXT, []) == [{"content": "Paris."}, {"content": ""}]

    def test_the_chunk_that_closes_a_trace_comes_with_the_first_text(self) -> None:
        assert deltas(THOUGHT[:1], THOUGHT[1:3], THOUGHT[3:], [TextPiece("!")]) == [
            {"content": [thinking("7 × ")]},
            {"content": [thinking("6")]},
            {"content": [closing(), {"type": "text", "text": "42"}]},
            {"content": "!"},
        ]

    def test_a_trace_without_text_is_closed_at_the_end(self) -> None:
        assert deltas(THOUGHT[:2], THOUGHT[2:3]) == [
            {"content": [thinking("7 × 6")]},
            {"content": [closing()]},
        ]

    def test_calls_come_whole_with_the_finish_reason_and_without_content(self) -> None:
        assert deltas(CALLS[:3], CALLS[3:], reason="tool_calls") == [{"tool_calls": [ALPHA, BETA]}]

    def test_text_before_calls_is_a_delta_of_its_own(self) -> None:
        assert deltas(TEXT + CALLS[:3], reason="tool_calls") == [
            {"content": "Paris."},
            {"tool_calls": [ALPHA]},
        ]

    def test_a_trace_before_calls_is_closed_first(self) -> None:
        assert deltas(THOUGHT[:3], CALLS[:3], reason="tool_calls") == [
            {"content": [thinking("7 × 6")]},
            {"content": [closing()]},
            {"tool_calls": [ALPHA]},
        ]
        streamed = deltas(THOUGHT[:3], CALLS[:3], [], reason="tool_calls", stream_tool_calls=True)
        assert streamed[1] == {"content": [closing()]}
        assert "tool_calls" in streamed[2]

    def test_calls_that_were_cut_off_are_not_shown(self) -> None:
        assert deltas(CALLS[:2], [], reason="length") == [{"content": ""}]

    def test_calls_as_they_are_written(self) -> None:
        """`name` stays a string and `id` is absent in fragments: the TypeScript SDK breaks on null."""
        assert deltas(CALLS[:2], CALLS[2:4], CALLS[4:], reason="tool_calls", stream_tool_calls=True) == [
            {"tool_calls": [{**ALPHA, "function": {"name": "alpha", "arguments": ""}}]},
            {"tool_calls": [{"function": {"name": "", "arguments": '{"v"'}, "index": 0}]},
            {"tool_calls": [{"function": {"name": "", "arguments": ": 1}"}, "index": 0}]},
            {"tool_calls": [{**BETA, "function": {"name": "beta", "arguments": ""}}]},
            {"tool_calls": [{"function": {"name": "", "arguments": "{}"}, "index": 1}]},
            {"content": ""},
        ]

    @pytest.mark.parametrize("stream_tool_calls", [False, True])
    @pytest.mark.parametrize("pieces", [TEXT, THOUGHT, CALLS, THOUGHT[:3] + CALLS])
    def test_the_official_sdk_reads_every_delta(self, pieces: list[Piece], stream_tool_calls: bool) -> None:
        reason: FinishReason = "tool_calls" if CALLS[0] in pieces else "stop"
        batches = [[piece] for piece in pieces]
        for delta in deltas(*batches, [], reason=reason, stream_tool_calls=stream_tool_calls):
            parsed = DeltaMessage.model_validate(delta)
            assert parsed.content is not None or parsed.tool_calls
