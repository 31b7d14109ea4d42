"""What keeps a run from starting or going on."""

from __future__ import annotations


class CannotTrain(Exception):
    """The run cannot be started or gone on with as asked; the message is for the operator."""
