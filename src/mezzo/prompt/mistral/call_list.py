"""Tool calls as one JSON list, the form of v2, v3 and v7: `[{"name": ..., "arguments": {...}, "id": ...}, ...]`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mezzo.prompt.mistral.call_readers import TOOL_CALLS, Calls, Tail
from mezzo.prompt.mistral.json_scan import Arguments, JsonValue
from mezzo.prompt.output import Piece, TextPiece, ToolCallArguments
from mezzo.prompt.validate import is_function_name

_State = Callable[[str], str]
"""Takes text, reads its beginning, returns the rest."""


class ListCallReader:
    """Follows the list as it comes.

    A call begins with its name; arguments that came before are passed on right after it. The id that these models
    write stands behind the arguments: it is kept where it comes before the name, else the call has got one already.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._pieces: list[Piece] = []
        self._held = TOOL_CALLS  # since the last call: what is shown as text if no call comes of it
        self._state: _State = self._list
        self._tail: Tail | None = None
        self._start_object()

    @property
    def is_complete(self) -> bool:
        return self._tail is not None

    def feed(self, text: str) -> list[Piece]:
        while text:
            was_call = self._number is not None
            rest = text.lstrip() if self._is_between else text
            if rest == text:
                rest = self._state(text)
            if not was_call and self._number is None and self._tail is None:
                self._held += text[: len(text) - len(rest)]
            text = rest
        pieces, self._pieces = self._pieces, []
        return pieces

    def marker(self, name: str) -> list[Piece]:
        return self.feed(name)

    def end(self, *, is_cut: bool) -> list[Piece]:
        if self._tail is not None or is_cut:
            return []
        if self._number is not None:
            self._end_arguments()
        elif self._held.strip(" \t\r\n,"):
            self._pieces.append(TextPiece(self._held))
        pieces, self._pieces = self._pieces, []
        return pieces

    @property
    def _is_between(self) -> bool:
        """Whether white space here is between tokens of the JSON, and not for a state to read."""
        return self._state not in {self._read_key, self._read_value, self._read_arguments, self._after}

    def _start_object(self) -> None:
        self._number: int | None = None
        self._id: str | None = None
        self._key = JsonValue()
        self._value = JsonValue()
        self._arguments: Arguments | None = None
        self._early_arguments = ""
        self._other_objects: list[str] = []

    def _list(self, text: str) -> str:
        if text[0] != "[":
            return self._give_up(text)
        self._state = self._item
        return text[1:]

    def _item(self, text: str) -> str:
        if text[0] == "{":
            self._start_object()
            self._state = self._member
        elif text[0] == "]":
            return self._end_list(text)
        elif text[0] != ",":
            return self._give_up(text)
        return text[1:]

    def _member(self, text: str) -> str:
        if text[0] == '"':
            self._key = JsonValue()
            self._state = self._read_key
            return text
        if text[0] == "}":
            return self._end_object(text)
        return text[1:] if text[0] == "," else self._give_up(text)

    def _read_key(self, text: str) -> str:
        rest = self._key.feed(text)
        if self._key.is_complete:
            self._state = self._colon
        return rest

    def _colon(self, text: str) -> str:
        if text[0] != ":":
            return self._give_up(text)
        is_arguments = _loads(self._key.text) == "arguments" and self._arguments is None
        if is_arguments:
            self._arguments = Arguments(is_open_ended=False)
        self._value = JsonValue()
        self._state = self._read_arguments if is_arguments else self._read_value
        return text[1:]

    def _read_value(self, text: str) -> str:
        rest = self._value.feed(text)
        if not self._value.is_complete:
            return rest
        self._state = self._member
        key, value = _loads(self._key.text), _loads(self._value.text)
        if key == "id" and isinstance(value, str):
            self._id = value
        if isinstance(value, dict):
            self._other_objects.append(self._value.text)
        if key == "name" and self._number is None:
            if not isinstance(value, str) or not is_function_name(value):
                self._held += text[: len(text) - len(rest)]
                return self._give_up(rest)
            self._begin(value)
        return rest

    def _begin(self, name: str) -> None:
        begin = self._calls.begin(name, self._id)
        self._number = begin.number
        self._held = ""
        self._pieces.append(begin)
        self._show_arguments(self._early_arguments)

    def _read_arguments(self, text: str) -> str:
        assert self._arguments is not None
        shown, rest = self._arguments.feed(text)
        if self._number is None:
            self._early_arguments += shown
        else:
            self._show_arguments(shown)
        if self._arguments.is_complete:
            self._state = self._member
        return rest

    def _show_arguments(self, text: str) -> None:
        assert self._number is not None
        if text:
            self._pieces.append(ToolCallArguments(self._number, text))

    def _end_arguments(self) -> None:
        if self._arguments is None:
            # Models do write `parameters`: the only object there is, is what they mean.
            self._show_arguments(self._other_objects[0] if len(self._other_objects) == 1 else "{}")
        elif not self._arguments.is_complete:
            self._show_arguments(self._arguments.end())

    def _end_object(self, text: str) -> str:
        if self._number is None:
            return self._give_up(text)
        self._end_arguments()
        self._start_object()
        self._state = self._item
        return text[1:]

    def _end_list(self, text: str) -> str:
        if self._held.startswith(TOOL_CALLS):  # a list without calls
            return self._give_up(text)
        self._tail = Tail()
        self._state = self._after
        return text[1:]

    def _give_up(self, text: str) -> str:
        """Take `text`, and what is held, for text of the answer."""
        if self._number is not None:
            self._end_arguments()
        self._tail = Tail(has_text=True)
        self._pieces += self._tail.feed(self._held + text)
        self._state = self._after
        return ""

    def _after(self, text: str) -> str:
        assert self._tail is not None
        self._pieces += self._tail.feed(text)
        return ""


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
