"""From the bytes of a stream of server-sent events to the data of each event.

Source: the WHATWG's HTML standard, section 9.2.6. Of an event's fields only `data` is kept; carriage returns alone end
no line, which no server of this kind writes.
"""

from __future__ import annotations


class EventTooLarge(Exception):
    """An event that is larger than any chunk of an answer."""


class EventReader:
    """Takes bytes as they come, in pieces of any size. `max_bytes` bounds one event, and what is held."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._line: list[bytes] = []  # pieces of a line whose end has not come
        self._data: list[bytes] = []  # lines of an event whose end has not come
        self._num_bytes = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of the events that are complete with this piece. Raises: EventTooLarge."""
        first, *lines = piece.split(b"\n")
        self._hold(self._line, first)
        if not lines:
            return []
        *lines, rest = [b"".join(self._line), *lines]
        self._line, self._num_bytes = [], sum(map(len, self._data)) + len(self._data)
        events = []
        for line in lines:
            if not line.strip(b"\r"):
                if self._data:
                    events.append(b"\n".join(self._data))
                self._data, self._num_bytes = [], 0
            elif line.startswith(b"data:"):
                self._hold(self._data, line[5:].removeprefix(b" ").removesuffix(b"\r"))
        self._hold(self._line, rest)
        return events

    def _hold(self, where: list[bytes], piece: bytes) -> None:
        where.append(piece)
        self._num_bytes += len(piece) + 1  # nothing at all takes a place, too
        if self._num_bytes > self._max_bytes:
            raise EventTooLarge(f"an event of more than {self._max_bytes} bytes")
