"""From token ids to text that may be shown: whole characters only, cut before the first stop string."""

from __future__ import annotations

import codecs


class TextStream:
    """The text of one sequence, as it grows.

    Tokens are bytes, and a character may span several of them: bytes are decoded incrementally and an unfinished
    character is held back. Text that could still turn out to be the beginning of a stop string is held back too.
    Whatever the borders between tokens, the concatenation of what `feed` and `flush` return is the same text.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self.is_stopped = False
        self._stop = stop
        self._held = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: bytes) -> str:
        """Take the bytes of a token and return text that is now certain.

        Sets `is_stopped` once a stop string is complete; it and what follows it are not part of the text.
        """
        return self._advance(self._decoder.decode(token))

    def flush(self) -> str:
        """Return what was held back: at the end, or before something that is no text.

        An unfinished character becomes U+FFFD, as tokenizers decode it. No stop string reaches across.
        """
        if self.is_stopped:
            return ""
        rest = self._advance(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return rest + held

    def _advance(self, new: str) -> str:
        if not self._stop or not new:
            return new
        text = self._held + new
        if (cut := _first_stop(text, self._stop)) is not None:
            self.is_stopped = True
            self._held = ""
            return text[:cut]
        num_held = _longest_begun(text, self._stop)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]


def _first_stop(text: str, stop: tuple[str, ...]) -> int | None:
    """Return where the stop string begins that is complete first, reading from the left; None if none is.

    Complete first, not begun first: that is the same whether text comes by the character or all at once.
    """
    found = [(begin + len(s), begin) for s in stop if (begin := text.find(s)) >= 0]
    return min(found)[1] if found else None


def _longest_begun(text: str, stop: tuple[str, ...]) -> int:
    """Return the length of the longest end of `text` that is the beginning of a stop string."""
    longest = 0
    for s in stop:
        for length in range(min(len(s) - 1, len(text)), longest, -1):
            if text.endswith(s[:length]):
                longest = length
                break
    return longest
