"""The one error of reading checkpoints, and checks of numbers that stand in their configurations."""

from __future__ import annotations

import math
from typing import Any

# No size of a network is near it, and products of two such sizes still fit PyTorch's integers.
MAX_SIZE = 2**31 - 1
_MAX_MESSAGE = 1000


class UnsupportedCheckpoint(Exception):
    """The checkpoint asks for something this implementation does not have; the message names it, on one line.

    Names and values of a stranger's files may be in it: what cannot be printed is escaped, and what is long is cut.
    """

    def __init__(self, message: str) -> None:
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message[: _MAX_MESSAGE + 1])
        super().__init__(shown if len(shown) <= _MAX_MESSAGE else shown[:_MAX_MESSAGE] + "…")


def check_size(name: str, value: Any) -> None:
    """Raises: UnsupportedCheckpoint unless `value` is a whole number from 1 to MAX_SIZE."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise UnsupportedCheckpoint(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise UnsupportedCheckpoint(f"{name} must be at least 1, not {value}")
    if value > MAX_SIZE:
        raise UnsupportedCheckpoint(f"{name} must be at most {MAX_SIZE}")


def check_number(name: str, value: Any, *, above: float = -math.inf, at_least: float = -math.inf) -> None:
    """Raises: UnsupportedCheckpoint unless `value` is a finite number in its range."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UnsupportedCheckpoint(f"{name} must be a finite number, not {value!r}")
    if value <= above:
        raise UnsupportedCheckpoint(f"{name} must be above {above:g}, not {value}")
    if value < at_least:
        raise UnsupportedCheckpoint(f"{name} must be at least {at_least:g}, not {value}")
