"""What accounts refuse. The server maps each to an answer, the command line to a message.

AccountsError
├── NotThere        no such object, or not for this caller: the two look alike
├── Conflict        it exists already, or is in the way
└── Unacceptable    a value that cannot be used; `param` names it
"""

from __future__ import annotations


class AccountsError(Exception):
    """A refusal; the message may be shown to whoever asked."""


class NotThere(AccountsError):
    """No such object, or it is another organisation's."""


class Conflict(AccountsError):
    """The change contradicts what is there."""


class Unacceptable(AccountsError):
    """A value that cannot be used."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param
