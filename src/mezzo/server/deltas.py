"""From the pieces of one choice to the deltas of its stream.

Text comes as it is produced. A reasoning trace comes as chunks in a list; the chunk that closes it comes together with
the first text behind it. Tool calls come whole, with the finish reason, unless the client asked for them as they are
written.
Source: the reference API's streams as digested in docs/compatibility.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET

from mezzo.prompt.output import Piece, TextPiece, ThinkingPiece, ToolCallArguments, ToolCallBegin
from mezzo.protocol.response import (
    Delta,
    FinishReason,
    FunctionOfCall,
    TextContent,
    ThinkingContent,
    ToolCallOfAnswer,
)
from mezzo.server.message import CallsBuilder


class DeltaWriter:
    """Writes the deltas of one choice."""

    def __init__(self, *, stream_tool_calls: bool) -> None:
        self._stream_tool_calls = stream_tool_calls
        self._calls = CallsBuilder()
        self._is_closing = False  # the trace has ended, and no text has followed yet

    def deltas(self, pieces: Iterable[Piece]) -> list[Delta]:
        """Return what `pieces` add; neighbours of a kind become one delta."""
        deltas: list[Delta] = []
        for content in _merged(pieces):
            if isinstance(content, TextPiece):
                deltas.append(self._text(content.text))
            elif isinstance(content, ThinkingPiece):
                if content.text:
                    deltas.append(Delta(content=[ThinkingContent(thinking=[TextContent(content.text)])]))
                self._is_closing = self._is_closing or content.closes
            elif self._stream_tool_calls:
                deltas += [*self._closed(), Delta(tool_calls=[_fragment(content)])]
            else:
                self._calls.add(content)
        return deltas

    def last_deltas(self, deltas: list[Delta], reason: FinishReason) -> list[Delta]:
        """Return `deltas` followed by, or with as its last, the one that goes with the finish reason."""
        deltas = [*deltas, *self._closed()]
        if reason == "tool_calls" and not self._stream_tool_calls:
            return [*deltas, Delta(tool_calls=self._calls.calls())]
        if deltas and deltas[-1].tool_calls is UNSET:
            return deltas
        return [*deltas, Delta(content="")]

    def _closed(self) -> list[Delta]:
        """Return the delta that closes the trace, if it is still to be closed and no text comes along."""
        if not self._is_closing:
            return []
        self._is_closing = False
        return [Delta(content=[_closing()])]

    def _text(self, text: str) -> Delta:
        if not self._is_closing:
            return Delta(content=text)
        self._is_closing = False
        return Delta(content=[_closing(), TextContent(text)])


def _merged(pieces: Iterable[Piece]) -> list[Piece]:
    """Join neighbouring texts, traces and arguments; empty ones that say nothing are left out."""
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if isinstance(piece, TextPiece) and isinstance(last, TextPiece):
            merged[-1] = TextPiece(last.text + piece.text)
        elif isinstance(piece, ThinkingPiece) and isinstance(last, ThinkingPiece) and not last.closes:
            merged[-1] = ThinkingPiece(last.text + piece.text, piece.closes)
        elif (
            isinstance(piece, ToolCallArguments)
            and isinstance(last, ToolCallArguments)
            and piece.number == last.number
        ):
            merged[-1] = ToolCallArguments(piece.number, last.text + piece.text)
        elif not isinstance(piece, TextPiece) or piece.text:
            merged.append(piece)
    return merged


def _closing() -> ThinkingContent:
    return ThinkingContent(thinking=[TextContent("")], closed=True)


def _fragment(piece: ToolCallBegin | ToolCallArguments) -> ToolCallOfAnswer:
    if isinstance(piece, ToolCallBegin):
        function = FunctionOfCall(name=piece.name, arguments="")
        return ToolCallOfAnswer(id=piece.id, type="function", function=function, index=piece.number)
    return ToolCallOfAnswer(function=FunctionOfCall(name="", arguments=piece.text), index=piece.number)
