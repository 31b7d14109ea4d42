"""The one error of reading checkpoints, apart from the modules that raise it."""

from __future__ import annotations


class UnsupportedCheckpoint(Exception):
    """The checkpoint asks for something this implementation does not have; the message names it."""
