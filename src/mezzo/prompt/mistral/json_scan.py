"""Reading one JSON value out of text that comes in fragments: where it ends, and what of it may be passed on."""

from __future__ import annotations

import json

_SCALAR_ENDS = frozenset(",]} \t\r\n")


class JsonValue:
    """Finds the end of a value. Only strings and nesting are followed: whether it is valid JSON is not checked.

    text          what was taken so far
    is_complete   whether the value has ended
    """

    def __init__(self) -> None:
        self.text = ""
        self.is_complete = False
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def feed(self, fragment: str) -> str:
        """Take what belongs to the value and return the rest; white space before the value is dropped."""
        if not self.text:
            fragment = fragment.lstrip()
        for position, char in enumerate(fragment):
            if not self._in_string and self._depth == 0 and self._is_scalar_end(position, char):
                self.is_complete = True
                self.text += fragment[:position]
                return fragment[position:]
            self._follow(char)
            if self.is_complete:
                self.text += fragment[: position + 1]
                return fragment[position + 1 :]
        self.text += fragment
        return ""

    def _is_scalar_end(self, position: int, char: str) -> bool:
        return (position > 0 or self.text != "") and char in _SCALAR_ENDS

    def _follow(self, char: str) -> None:
        if self._in_string:
            if self._is_escaped:
                self._is_escaped = False
            elif char == "\\":
                self._is_escaped = True
            elif char == '"':
                self._in_string = False
                self.is_complete = self._depth == 0
        elif char == '"':
            self._in_string = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            self.is_complete = self._depth <= 0


class Arguments:
    """The arguments of a call as they come.

    Objects, and whatever else is not a string, are passed on verbatim. A string holds arguments that were no JSON:
    mistral_common writes those so into prompts; it is decoded once it is complete.
    is_complete     whether the arguments have ended
    is_open_ended   text that cannot be JSON is taken up to the end of the call, instead of up to a delimiter
    """

    def __init__(self, *, is_open_ended: bool) -> None:
        self._value = JsonValue()
        self._is_open_ended = is_open_ended
        self._num_passed_on = 0

    @property
    def is_complete(self) -> bool:
        return self._value.is_complete

    def feed(self, fragment: str) -> tuple[str, str]:
        """Return the text to pass on, and the rest that is no part of the arguments any more."""
        if self._is_open_ended and (begin := self._value.text or fragment.lstrip()) and begin[0] not in '{["':
            taken = fragment if self._value.text else fragment.lstrip()
            self._value.text += taken
            self._num_passed_on += len(taken)
            return taken, ""
        rest = self._value.feed(fragment)
        if self._value.text.startswith('"'):
            return (_decoded(self._take()) if self.is_complete else ""), rest
        return self._take(), rest

    def end(self) -> str:
        """Return what is still to be passed on when nothing follows: an unfinished string, `{}` for no arguments."""
        return "{}" if not self._value.text else self._take()

    def _take(self) -> str:
        new = self._value.text[self._num_passed_on :]
        self._num_passed_on = len(self._value.text)
        return new


def _decoded(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return text
