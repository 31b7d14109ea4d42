"""Answers of models without control tokens for calls: `<tool_call>[{...}]</tool_call>` in the text."""

from __future__ import annotations

from collections.abc import Callable

from mezzo.kit.ids import new_tool_call_id
from mezzo.prompt.instructions import CALL_TAG, END_CALL_TAG
from mezzo.prompt.mistral.call_list import ListCallReader
from mezzo.prompt.mistral.call_readers import Calls
from mezzo.prompt.output import Piece, TextPiece
from mezzo.protocol.response import FinishReason


class TaggedParser:
    """The parser of one choice: text up to the first tag, then calls.

    The grammar of the request sees to it that what follows a tag is a list of calls and the end of the answer.
    """

    def __init__(self, new_id: Callable[[], str] = new_tool_call_id) -> None:
        self._calls = Calls(new_id)
        self._reader: ListCallReader | None = None
        self._held = ""

    def feed(self, text: str, marker: int | None = None) -> list[Piece]:
        """Take text and return the pieces that are now certain; the begin of a tag and white space are held back."""
        self._held += text
        if self._reader is not None:
            return self._feed_calls()
        before, tag, after = self._held.partition(CALL_TAG)
        if tag:
            self._held = after
            self._reader = ListCallReader(self._calls)
            return [*_text(before.rstrip()), *self._feed_calls()]
        certain = before[: len(before) - _longest_begun(before, CALL_TAG)].rstrip()
        self._held = before[len(certain) :]
        return _text(certain)

    def finish(self, reason: FinishReason, *, is_stopped: bool = False) -> tuple[list[Piece], FinishReason]:
        """Return what was held back, and the finish reason to report."""
        if self._reader is None:
            return _text(self._held), reason
        is_cut = reason != "stop" or (is_stopped and not self._reader.is_complete)
        pieces = self._reader.end(is_cut=is_cut)
        return pieces, "tool_calls" if self._calls.number and not is_cut else reason

    def _feed_calls(self) -> list[Piece]:
        assert self._reader is not None
        num_held = _longest_begun(self._held, END_CALL_TAG)
        text, self._held = self._held[: len(self._held) - num_held], self._held[len(self._held) - num_held :]
        return self._reader.feed(text.replace(END_CALL_TAG, ""))


def _text(text: str) -> list[Piece]:
    return [TextPiece(text)] if text else []


def _longest_begun(text: str, tag: str) -> int:
    """Return the length of the longest end of `text` that begins `tag` without being all of it."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)
