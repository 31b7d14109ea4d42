"""From the deltas of one choice of an upstream's stream to pieces, in OpenAI's form and in Mistral's.

Thinking is a field of its own (`reasoning`) or parts of a list; it ends where something else begins. Tool calls come
whole or in fragments. Ids of calls that the API would not take back are replaced by ids that it does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from mezzo.backends.upstream.wire import CallDelta, Delta, Part
from mezzo.kit.ids import new_tool_call_id
from mezzo.prompt.mistral.call_readers import Calls
from mezzo.prompt.output import Piece, TextPiece, ThinkingPiece, ToolCallArguments
from mezzo.protocol.response import FinishReason

# What servers write for the reasons that the API knows; a filter's cut is no proper end of an answer.
_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "model_length": "model_length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "error": "error",
    "abort": "error",
    "content_filter": "error",
}

_log = structlog.get_logger("mezzo.backends")


class BrokenAnswer(Exception):
    """An answer that breaks off or makes no sense; the message is for the operator's log."""


@dataclass(slots=True)
class _Call:
    number: int
    upstream_id: str | None
    has_arguments: bool = False


class ChoiceReader:
    """Reads one choice."""

    def __init__(self, prefix: str) -> None:
        """prefix: text that is left out where the choice begins with it."""
        self._prefix = _PrefixDropper(prefix)
        self._is_thinking = False
        self._ids = Calls(new_tool_call_id)
        self._calls: dict[int, _Call] = {}

    def read(self, delta: Delta) -> list[Piece]:
        """Return what a delta adds. Raises: BrokenAnswer."""
        pieces: list[Piece] = []
        thought = delta.reasoning_content if delta.reasoning is None else delta.reasoning
        if thought:
            pieces += self._think(thought)
        if isinstance(delta.content, str):
            pieces += self._say(delta.content)
        elif delta.content is not None:
            pieces += self._read_parts(delta.content)
        if delta.refusal:
            pieces += self._say(delta.refusal)
        for call in delta.tool_calls or ():
            pieces += self._read_call(call)
        return pieces

    def finish(self, reason: str) -> tuple[list[Piece], FinishReason]:
        """Return what was held back, and the reason to report.

        A choice that ends by itself with calls ends with `tool_calls`: servers say `stop` where a call was forced.
        """
        known = _REASONS.get(reason)
        if known is None:
            _log.warning("unknown finish reason of an upstream", reason=reason[:100])
            known = "error"
        pieces = self._stop_thinking()
        if rest := self._prefix.rest():
            pieces.append(TextPiece(rest))
        if known == "stop" and self._calls:
            known = "tool_calls"
        if known == "tool_calls":
            pieces += [
                ToolCallArguments(call.number, "{}")
                for call in self._calls.values()
                if not call.has_arguments
            ]
        return pieces, known

    def _read_parts(self, parts: Iterable[Part]) -> list[Piece]:
        pieces: list[Piece] = []
        for part in parts:
            if part.type == "thinking":
                pieces += self._think(_text_of(part.thinking))
                if part.closed:
                    pieces += self._stop_thinking()
            elif part.type == "text":
                pieces += self._say(part.text or "")
            else:
                raise BrokenAnswer(f"content of the unknown type {part.type[:100]!r}")
        return pieces

    def _think(self, text: str) -> list[Piece]:
        self._is_thinking = True
        return [ThinkingPiece(text)] if text else []

    def _stop_thinking(self) -> list[Piece]:
        if not self._is_thinking:
            return []
        self._is_thinking = False
        return [ThinkingPiece("", closes=True)]

    def _say(self, text: str) -> list[Piece]:
        shown = self._prefix.feed(text) if text else ""
        return [*self._stop_thinking(), TextPiece(shown)] if shown else []

    def _read_call(self, delta: CallDelta) -> list[Piece]:
        index = delta.index or 0
        name = (delta.function and delta.function.name) or ""
        arguments = delta.function.arguments if delta.function is not None else None
        call = self._calls.get(index)
        if call is None or (name and _is_id(delta.id) and delta.id != call.upstream_id):
            # A new id under a number that was there: a server that does not number its calls.
            return self._begin_call(index if call is None else len(self._calls), name, delta.id, arguments)
        return _arguments(call, arguments)

    def _begin_call(
        self, index: int, name: str, upstream_id: str | None, arguments: str | dict[str, object] | None
    ) -> list[Piece]:
        if not name:
            raise BrokenAnswer("a tool call without a name")
        begin = self._ids.begin(name, upstream_id)
        call = self._calls[index] = _Call(begin.number, upstream_id)
        return [*self._stop_thinking(), begin, *_arguments(call, arguments)]


def _is_id(text: str | None) -> bool:
    # Mistral's fragments have the text "null" for an id.
    return text is not None and text not in ("", "null")


def _arguments(call: _Call, arguments: str | dict[str, object] | None) -> list[Piece]:
    """Return more of a call's arguments; an object, which some servers write, as its JSON."""
    text = json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments
    if not text:
        return []
    call.has_arguments = True
    return [ToolCallArguments(call.number, text)]


def _text_of(thinking: str | list[Part] | None) -> str:
    if thinking is None or isinstance(thinking, str):
        return thinking or ""
    return "".join(part.text or "" for part in thinking)


class _PrefixDropper:
    """Leaves out a text that an answer may begin with."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what is no part of the prefix, or only looked like it."""
        if not self._prefix:
            return text
        self._held += text
        if self._prefix.startswith(self._held) and self._prefix != self._held:
            return ""
        prefix, held, self._prefix = self._prefix, self.rest(), ""
        return held.removeprefix(prefix)

    def rest(self) -> str:
        """Return what was held back, once."""
        held, self._held = self._held, ""
        return held
