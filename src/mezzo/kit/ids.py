"""Identifiers that appear on the wire, each in the form that the reference API gives it."""

from __future__ import annotations

import secrets
import string
import time
import uuid

_ALPHANUMERIC = string.ascii_letters + string.digits


def new_request_id() -> str:
    """Return 32 lowercase hexadecimal digits: the `id` of a completion and its name in every log."""
    return secrets.token_hex(16)


def new_correlation_id() -> str:
    """Return a UUID version 7 in text form, for the `mistral-correlation-id` header."""
    return str(uuid7())


def new_uuid() -> str:
    """Return a random UUID in text form: the id of everything that accounts are made of."""
    return str(uuid.uuid4())


def new_tool_call_id() -> str:
    """Return nine ASCII letters and digits: the only form of a tool call id that the API takes back."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))


def uuid7(unix_time_ms: int | None = None) -> uuid.UUID:
    """Return a UUID that sorts by its time of creation, to the millisecond.

    unix_time_ms: milliseconds since 1970, the present if None.
    Layout, high bits first: 48 bits of time, the version (4 bits), 12 random bits, the variant (2 bits),
    62 random bits. Source: RFC 9562, section 5.7. (`uuid.uuid7` exists from Python 3.14 on.)
    """
    time_ms = time.time_ns() // 1_000_000 if unix_time_ms is None else unix_time_ms
    random = secrets.randbits(74)
    value = (time_ms & (1 << 48) - 1) << 80
    value |= 0x7 << 76
    value |= (random >> 62) << 64
    value |= 0b10 << 62
    value |= random & (1 << 62) - 1
    return uuid.UUID(int=value)
