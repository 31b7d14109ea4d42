"""Calls between tags in text: found however the text is cut into pieces."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from mezzo.prompt.output import Piece, TextPiece, ToolCallArguments, ToolCallBegin
from mezzo.prompt.tagged_output import TaggedParser
from mezzo.protocol.response import FinishReason

ANSWER = (
    'I look. <tool_call>[{"name": "get", "arguments": {"sku": "A1"}}, '
    '{"name": "put", "arguments": {}}]</tool_call>'
)


def read(
    text: str, size: int = 1, reason: FinishReason = "stop", *, is_stopped: bool = False
) -> tuple[str, list[tuple[str, str]], str]:
    """Return text, calls as (name, arguments), and the finish reason."""
    numbers = count()
    parser = TaggedParser(lambda: f"call{next(numbers):05}")
    pieces: list[Piece] = []
    for start in range(0, len(text), size):
        pieces += parser.feed(text[start : start + size])
    rest, reported = parser.finish(reason, is_stopped=is_stopped)
    pieces += rest
    calls: list[list[Any]] = [[piece.name, ""] for piece in pieces if isinstance(piece, ToolCallBegin)]
    for piece in pieces:
        if isinstance(piece, ToolCallArguments):
            calls[piece.number][1] += piece.text
    said = "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))
    return said, [(name, arguments) for name, arguments in calls], reported


@pytest.mark.parametrize("size", [1, 2, 3, 7, 11, 12, 1000])
def test_text_and_calls(size: int) -> None:
    assert read(ANSWER, size) == ("I look.", [("get", '{"sku": "A1"}'), ("put", "{}")], "tool_calls")


@pytest.mark.parametrize(
    "text", ["", "Hello", "1 < 2", "<tool", "a <tool_cal", "ends with space \n", "</tool_call>"]
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_text_alone_comes_whole(text: str, size: int) -> None:
    assert read(text, size) == (text, [], "stop")


def test_text_is_not_held_back_for_long() -> None:
    parser = TaggedParser()
    assert parser.feed("Hello ") == [TextPiece("Hello")]
    assert parser.feed("you <") == [TextPiece(" you")]
    assert parser.feed("3") == [TextPiece(" <3")]


@pytest.mark.parametrize("end", range(len("I look. <tool_call>"), len(ANSWER) - len("</tool_call>") - 1))
def test_a_call_that_the_limit_cut_is_none(end: int) -> None:
    said, _, reason = read(ANSWER[:end], reason="length")
    assert (said, reason) == ("I look.", "length")


def test_a_call_that_a_stop_string_cut_is_none() -> None:
    assert read(ANSWER[:50], is_stopped=True)[2] == "stop"
