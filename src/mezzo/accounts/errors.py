"""What accounts refuse. The server maps each to an answer, the command line to a message.

AccountsError
├── NotThere        no such object, or not for this caller: the two look alike
├── Conflict        it exists already, or is in the way
├── NotAdmitted     somebody proved who they are, and has no place here
├── TooManyAttempts passwords were guessed too often; `retry_after_s` says when to go on
├── TooBusy         more passwords wait to be checked than can be in a time that anybody waits
└── Unacceptable    a value that cannot be used; `param` names it
"""

from __future__ import annotations


class AccountsError(Exception):
    """A refusal; the message may be shown to whoever asked."""


class NotThere(AccountsError):
    """No such object, or it is another organisation's."""


class Conflict(AccountsError):
    """The change contradicts what is there."""


class NotAdmitted(AccountsError):
    """An identity that no account belongs to, and that may not join."""


class TooManyAttempts(AccountsError):
    """One more attempt was not made. retry_after_s: whole seconds until one can be."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many attempts; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class TooBusy(AccountsError):
    """More passwords wait to be checked than can be in a time that anybody waits."""

    def __init__(self) -> None:
        super().__init__("Too many people sign in at this moment; try again")


class Unacceptable(AccountsError):
    """A value that cannot be used."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param
