"""What a model's output is made of: text, thinking, tool calls. Parsers make pieces of it as it comes.

The engine hands over text, and between texts the markers: control tokens that a checkpoint's format gives a meaning,
such as `[TOOL_CALLS]` and `[THINK]`. A marker is an id, so text that merely looks like one stays text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from mezzo.protocol.response import FinishReason


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingPiece:
    """Text of a reasoning trace; `closes` where the trace ends with it. The text may be empty then."""

    text: str
    closes: bool = False


@dataclass(frozen=True, slots=True)
class ToolCallBegin:
    """A tool call whose name is known. `number` counts the calls of one choice from 0."""

    number: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """More of the JSON text of a call's arguments."""

    number: int
    text: str


Piece = TextPiece | ThinkingPiece | ToolCallBegin | ToolCallArguments


def text_of_pieces(pieces: Iterable[Piece]) -> str:
    """Return all that pieces say, for logs: text, thinking, and calls by name and arguments."""
    return "".join(f"{piece.name} " if isinstance(piece, ToolCallBegin) else piece.text for piece in pieces)


class OutputParser(Protocol):
    """The parser of one choice."""

    def feed(self, text: str, marker: int | None = None) -> list[Piece]:
        """Take text and the marker that follows it, if one does; return the pieces that are now certain."""

    def finish(self, reason: FinishReason, *, is_stopped: bool = False) -> tuple[list[Piece], FinishReason]:
        """Return what was held back, and the finish reason to report: `tool_calls` where calls were completed.

        is_stopped: a stop string ended the answer, not the model; a call that it cut is none.
        Called once, at the end. What was begun as a call and cannot be one is returned as text: nothing is lost.
        """


class PlainParser:
    """For checkpoints without markers: everything is text."""

    def feed(self, text: str, marker: int | None = None) -> list[Piece]:
        return [TextPiece(text)] if text else []

    def finish(self, reason: FinishReason, *, is_stopped: bool = False) -> tuple[list[Piece], FinishReason]:
        return [], reason
