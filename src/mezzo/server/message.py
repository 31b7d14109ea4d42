"""The message of one choice, put together from its pieces."""

from __future__ import annotations

from collections.abc import Iterable

from mezzo.prompt.output import Piece, TextPiece, ThinkingPiece, ToolCallArguments, ToolCallBegin
from mezzo.protocol.response import (
    AnswerContent,
    FinishReason,
    FunctionOfCall,
    ResponseMessage,
    TextContent,
    ThinkingContent,
    ToolCallOfAnswer,
)


class CallsBuilder:
    """Collects the tool calls of one choice until they are complete."""

    def __init__(self) -> None:
        self._begun: list[ToolCallBegin] = []
        self._arguments: list[list[str]] = []

    def add(self, piece: ToolCallBegin | ToolCallArguments) -> None:
        """Take the next piece; the calls of a choice come in the order of their numbers."""
        if isinstance(piece, ToolCallBegin):
            self._begun.append(piece)
            self._arguments.append([])
        else:
            self._arguments[piece.number].append(piece.text)

    def calls(self) -> list[ToolCallOfAnswer]:
        """Return all calls as they are by now."""
        return [
            ToolCallOfAnswer(
                id=begin.id,
                type="function",
                function=FunctionOfCall(name=begin.name, arguments="".join(arguments)),
                index=begin.number,
            )
            for begin, arguments in zip(self._begun, self._arguments, strict=True)
        ]


class MessageBuilder:
    """Collects the pieces of one choice into the message of a whole answer."""

    def __init__(self, prefix: str) -> None:
        self._texts = [prefix]
        self._thinking: list[str] = []
        self._has_thought = False
        self._calls = CallsBuilder()

    def add(self, pieces: Iterable[Piece]) -> None:
        """Take the next pieces."""
        for piece in pieces:
            if isinstance(piece, TextPiece):
                self._texts.append(piece.text)
            elif isinstance(piece, ThinkingPiece):
                self._has_thought = True
                self._thinking.append(piece.text)
            else:
                self._calls.add(piece)

    def message(self, reason: FinishReason) -> ResponseMessage:
        """Return the message of a choice that ended for `reason`.

        Calls that were cut off are none: they are shown only where the choice ended with its calls complete.
        """
        calls = self._calls.calls() if reason == "tool_calls" else []
        return ResponseMessage(content=self._content(), tool_calls=calls or None)

    def _content(self) -> AnswerContent:
        text = "".join(self._texts)
        if not self._has_thought:
            return text
        trace = ThinkingContent(thinking=[TextContent("".join(self._thinking))], closed=True)
        return [trace, TextContent(text)] if text else [trace]
