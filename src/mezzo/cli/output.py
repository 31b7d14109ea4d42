"""What commands print: data to stdout, messages to stderr, an expected failure as one or two lines."""

from __future__ import annotations

import sys


class CommandFailed(Exception):
    """An expected failure. It ends the command with one line, `hint` on a second one, and no traceback.

    exit_code: 2 when the command was called wrongly, 1 otherwise.
    """

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code


def say(message: str) -> None:
    """Print one message for the person at the terminal."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201 - this is where commands print


def put(line: str = "") -> None:
    """Print one line of the command's result, as it is: never wrapped, never coloured."""
    print(line, flush=True)  # noqa: T201 - this is where commands print


def report(failure: CommandFailed) -> None:
    """Print a failure."""
    say(f"error: {failure}")
    if failure.hint:
        say(f"       {failure.hint}")
