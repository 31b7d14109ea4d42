"""Answers of Mistral's checkpoints: text, reasoning traces between `[THINK]` and `[/THINK]`, tool calls.

How a choice that finishes is to be read:

    `tool_calls`   the model made calls and came to an end by itself. Arguments are as it wrote them, valid JSON or not
    `length` ...   calls that had begun may be cut, and are no part of an answer that is given as a whole: its content
                   is the text, `tool_calls` is null. A stream has shown their beginning
    `stop`         so too where a stop string ended the answer amid a call
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mezzo.kit.ids import new_tool_call_id
from mezzo.prompt.mistral.call_list import ListCallReader
from mezzo.prompt.mistral.call_readers import TOOL_CALLS, CallReader, Calls, NamedCallReader
from mezzo.prompt.output import OutputParser, Piece, TextPiece, ThinkingPiece
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.content import ThinkingChunk
from mezzo.protocol.response import FinishReason

THINK, END_THINK = "[THINK]", "[/THINK]"


@dataclass(frozen=True, slots=True)
class Markers:
    """What structures the answers of one format version.

    names               id of every marker -> its text
    has_named_calls     calls are `name[ARGS]{...}`, not a JSON list
    begins_with_space   the first token carries a space that the text has not, as SentencePiece's do
    """

    names: Mapping[int, str]
    has_named_calls: bool
    begins_with_space: bool


def make_parser(
    markers: Markers,
    request: ChatCompletionRequest | None = None,
    *,
    new_id: Callable[[], str] = new_tool_call_id,
) -> OutputParser:
    """Return a parser for one answer to `request`: after a prefix, the output goes on where the prefix stopped."""
    last = request.continued if request is not None else None
    if last is None:
        return MistralParser(markers, new_id, drops_space=markers.begins_with_space)
    end = last.content[-1] if isinstance(last.content, list) and last.content else None
    in_thinking = isinstance(end, ThinkingChunk) and not end.closed and not last.tool_calls
    return MistralParser(markers, new_id, in_thinking=in_thinking)


class MistralParser:
    """The parser of one choice. A marker that means nothing where it stands is its own text: nothing is lost."""

    def __init__(
        self,
        markers: Markers,
        new_id: Callable[[], str],
        *,
        in_thinking: bool = False,
        drops_space: bool = False,
    ) -> None:
        self._markers = markers
        self._calls = Calls(new_id)
        self._reader: CallReader | None = None
        self._in_thinking = in_thinking
        self._drops_space = drops_space

    def feed(self, text: str, marker: int | None = None) -> list[Piece]:
        """Take text and the marker that follows it, if one does; return the pieces that are now certain."""
        pieces = self._text(text) if text else []
        if marker is not None and (name := self._markers.names.get(marker)) is not None:
            pieces += self._marker(name)
        return pieces

    def finish(self, reason: FinishReason, *, is_stopped: bool = False) -> tuple[list[Piece], FinishReason]:
        """Return what was held back, and the finish reason to report. See the head of this file."""
        is_cut = reason != "stop" or (
            is_stopped and self._reader is not None and not self._reader.is_complete
        )
        pieces = self._close_thinking()
        if self._reader is not None:
            pieces += self._reader.end(is_cut=is_cut)
        return pieces, "tool_calls" if self._calls.number and not is_cut else reason

    def _text(self, text: str) -> list[Piece]:
        if self._drops_space:
            text = text.removeprefix(" ")
            self._drops_space = False
        if self._reader is not None:
            return self._reader.feed(text)
        if not text:
            return []
        return [ThinkingPiece(text)] if self._in_thinking else [TextPiece(text)]

    def _marker(self, name: str) -> list[Piece]:
        self._drops_space = False
        if name == TOOL_CALLS:
            pieces = [*self._close_thinking(), *self._end_calls()]
            self._reader = (
                NamedCallReader(self._calls) if self._markers.has_named_calls else ListCallReader(self._calls)
            )
            return pieces
        if name == THINK and not self._in_thinking:
            self._in_thinking = True
            return self._end_calls()
        if name == END_THINK and self._in_thinking:
            return self._close_thinking()
        if self._reader is not None:
            return self._reader.marker(name) if name not in {THINK, END_THINK} else self._reader.feed(name)
        return self._text(name)

    def _close_thinking(self) -> list[Piece]:
        if not self._in_thinking:
            return []
        self._in_thinking = False
        return [ThinkingPiece("", closes=True)]

    def _end_calls(self) -> list[Piece]:
        if self._reader is None:
            return []
        pieces = self._reader.end(is_cut=False)
        self._reader = None
        return pieces
