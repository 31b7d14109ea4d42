"""Tool calls as Mistral's checkpoints write them, read piece by piece after a `[TOOL_CALLS]` marker.

What is passed on as a call cannot be taken back, so a call begins once its name is known to be one. What turns out to
be no call before that is returned verbatim, markers spelled out; what follows the calls is text of the answer.
Arguments are not checked: should they be no JSON at the end, the client gets them as the model wrote them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mezzo.prompt.mistral.json_scan import Arguments
from mezzo.prompt.output import Piece, TextPiece, ToolCallArguments, ToolCallBegin
from mezzo.prompt.validate import is_function_name, is_tool_call_id

TOOL_CALLS, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"


class Calls:
    """Numbers and ids of one choice's calls."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._ids: set[str] = set()

    @property
    def number(self) -> int:
        """How many calls have begun."""
        return len(self._ids)

    def begin(self, name: str, own_id: str | None = None) -> ToolCallBegin:
        """Return the begin of the next call, with the model's own id where the API would take it back."""
        call_id = own_id if own_id is not None and is_tool_call_id(own_id) else self._new_id()
        while call_id in self._ids:
            call_id = self._new_id()
        begin = ToolCallBegin(self.number, call_id, name)
        self._ids.add(call_id)
        return begin


class CallReader(Protocol):
    """Reads what follows one `[TOOL_CALLS]`."""

    @property
    def is_complete(self) -> bool:
        """Whether no call is under way: what was begun has ended, or turned out to be text."""

    def feed(self, text: str) -> list[Piece]:
        """Take text and return the pieces that are now certain."""

    def marker(self, name: str) -> list[Piece]:
        """Take `[ARGS]` or `[CALL_ID]`."""

    def end(self, *, is_cut: bool) -> list[Piece]:
        """Return what was held back; `is_cut`: the model had more to say, so an unfinished call is not shown."""


class Tail:
    """What follows complete calls: text, but for white space at the end, which models like to leave there."""

    def __init__(self, *, has_text: bool = False) -> None:
        """`has_text`: what came before was text already, so that all that follows is."""
        self._held = ""
        self._has_text = has_text

    def feed(self, text: str) -> list[Piece]:
        if self._has_text:
            return [TextPiece(text)] if text else []
        self._held += text
        if not self._held.strip():
            return []
        shown = self._held.rstrip()
        self._held = self._held[len(shown) :]
        return [TextPiece(shown)]


class NamedCallReader:
    """The form from v11 on: `name[CALL_ID]id[ARGS]{...}`, mostly without an id, one call after each marker."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._raw = TOOL_CALLS
        self._name = ""
        self._id: str | None = None
        self._number: int | None = None
        self._arguments = Arguments(is_open_ended=True)
        self._tail: Tail | None = None

    @property
    def is_complete(self) -> bool:
        return self._tail is not None

    def feed(self, text: str) -> list[Piece]:
        if self._tail is not None:
            return self._tail.feed(text)
        if self._number is not None:
            return self._feed_arguments(text, self._number)
        # No name holds a brace: a model that leaves out [ARGS] goes on with the arguments themselves.
        head, brace, rest = text.partition("{")
        self._raw += head
        if self._id is None:
            self._name += head
        else:
            self._id += head
        if not brace:
            return []
        return [*self._begin(), *self.feed(brace + rest)]

    def marker(self, name: str) -> list[Piece]:
        if self._number is not None or self._tail is not None:
            return self.feed(name)
        self._raw += name
        if name == CALL_ID and self._id is None:
            self._id = ""
            return []
        return self._begin()

    def end(self, *, is_cut: bool) -> list[Piece]:
        if self._tail is not None:
            return []
        if self._number is None:
            return [] if is_cut else [TextPiece(self._raw)]
        if self._arguments.is_complete or is_cut:
            return []
        return [ToolCallArguments(self._number, text)] if (text := self._arguments.end()) else []

    def _begin(self) -> list[Piece]:
        name = self._name.strip()
        if not is_function_name(name):
            self._tail = Tail(has_text=True)
            return self._tail.feed(self._raw)
        begin = self._calls.begin(name, None if self._id is None else self._id.strip())
        self._number = begin.number
        return [begin]

    def _feed_arguments(self, text: str, number: int) -> list[Piece]:
        shown, rest = self._arguments.feed(text)
        pieces: list[Piece] = [ToolCallArguments(number, shown)] if shown else []
        if self._arguments.is_complete:
            self._tail = Tail()
            pieces += self._tail.feed(rest)
        return pieces
