"""Outputs written down with their markers, parsed whole and character by character."""

from __future__ import annotations

import itertools
from typing import Any

from mezzo.prompt.mistral.output import Markers, make_parser
from mezzo.prompt.output import (
    OutputParser,
    Piece,
    TextPiece,
    ThinkingPiece,
    ToolCallArguments,
    ToolCallBegin,
)
from mezzo.protocol.response import FinishReason

NAMES = {1: "[TOOL_CALLS]", 2: "[ARGS]", 3: "[CALL_ID]", 4: "[THINK]", 5: "[/THINK]"}
IDS = {name: token_id for token_id, name in NAMES.items()}
LISTS = Markers({1: "[TOOL_CALLS]"}, has_named_calls=False, begins_with_space=False)
NAMED = Markers(NAMES, has_named_calls=True, begins_with_space=False)

Output = list[str | int]
"""Text, and markers by id."""


def spelled(output: str) -> Output:
    """Return an output in which `<ARGS>` stands for the marker `[ARGS]`."""
    parts: Output = []
    for part in output.replace(">", "<").split("<"):
        parts.append(IDS.get(f"[{part}]", part))
    return [part for part in parts if part != ""]


def numbered() -> Any:
    counter = itertools.count()
    return lambda: f"made{next(counter):05}"


def run(parser: OutputParser, output: Output, reason: FinishReason) -> tuple[list[Piece], str]:
    pieces: list[Piece] = []
    for part in output:
        pieces += parser.feed(part) if isinstance(part, str) else parser.feed("", part)
    rest, finished = parser.finish(reason)
    return merged([*pieces, *rest]), finished


def merged(pieces: list[Piece]) -> list[Piece]:
    """Return pieces with neighbours of one kind joined."""
    result: list[Piece] = []
    for piece in pieces:
        last = result[-1] if result else None
        if isinstance(last, TextPiece) and isinstance(piece, TextPiece):
            result[-1] = TextPiece(last.text + piece.text)
        elif isinstance(last, ThinkingPiece) and isinstance(piece, ThinkingPiece) and not last.closes:
            result[-1] = ThinkingPiece(last.text + piece.text, piece.closes)
        elif (
            isinstance(last, ToolCallArguments)
            and isinstance(piece, ToolCallArguments)
            and last.number == piece.number
        ):
            result[-1] = ToolCallArguments(last.number, last.text + piece.text)
        else:
            result.append(piece)
    return result


def parse(markers: Markers, output: str, reason: FinishReason = "stop") -> tuple[list[Piece], str]:
    whole = run(make_parser(markers, new_id=numbered()), spelled(output), reason)
    by_character: Output = []
    for part in spelled(output):
        by_character += list(part) if isinstance(part, str) else [part]
    assert run(make_parser(markers, new_id=numbered()), by_character, reason) == whole
    return whole


def call(number: int, name: str, arguments: str | None = None, call_id: str | None = None) -> list[Piece]:
    begin = ToolCallBegin(number, call_id or f"made{number:05}", name)
    return [begin] if arguments is None else [begin, ToolCallArguments(number, arguments)]
