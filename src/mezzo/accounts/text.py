"""What people write of themselves and their things: names, descriptions, addresses; checked before it is kept."""

from __future__ import annotations

import re

from mezzo.accounts.errors import Unacceptable
from mezzo.protocol.admin.fields import MAX_NAME_LENGTH, has_control_characters

_MAX_EMAIL_LENGTH = 254
# ASCII alone: two addresses that look alike are the same here. The local part has at most 64 characters, each label
# of the domain 63, and the last one begins with a letter: no IP addresses.
_EMAIL = re.compile(
    r"(?=[^@]{1,64}@)[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
    re.ASCII,
)


def check_text(
    text: str, *, param: str, max_length: int = MAX_NAME_LENGTH, may_be_empty: bool = False
) -> str:
    """Return a text that may be kept. Raises: Unacceptable for one that is empty, too long, or moves cursors."""
    if not text.strip() and not (text == "" and may_be_empty):
        raise Unacceptable(f"{param} is empty", param=param)
    if len(text) > max_length:
        raise Unacceptable(f"{param} has at most {max_length} characters", param=param)
    if has_control_characters(text):
        raise Unacceptable(f"{param} has no control characters", param=param)
    return text


def check_email(text: str, *, param: str = "email") -> str:
    """Return an address in the form in which it is kept and compared: lower case. Raises: Unacceptable."""
    address = text.strip().lower()
    # Asked of what was given: the Kelvin sign is a `k` only in lower case, and would pass for somebody else's.
    if not text.isascii() or len(address) > _MAX_EMAIL_LENGTH or not _EMAIL.fullmatch(address):
        raise Unacceptable("not an email address", param=param)
    return address


def split_emails(text: str) -> tuple[list[str], list[str]]:
    """Return the addresses in a text with commas or line ends between them, and what is none of these.

    Each comes once, in the order of the text; addresses in lower case.
    """
    good: dict[str, None] = {}
    bad: dict[str, None] = {}
    for piece in filter(None, (part.strip() for part in re.split(r"[,\r\n]", text))):
        try:
            good[check_email(piece)] = None
        except Unacceptable:
            bad[piece] = None
    return list(good), list(bad)
