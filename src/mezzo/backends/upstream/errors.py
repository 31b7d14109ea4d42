"""What a client is told when an upstream refuses: the request's fault is the client's, all else is the operator's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mezzo.backends.base import BackendUnavailable
from mezzo.backends.upstream.wire import UNREADABLE
from mezzo.protocol.errors import (
    ApiError,
    DomainError,
    InvalidArguments,
    InvalidAssistantMessage,
    InvalidDocument,
    InvalidFile,
    InvalidFunctionCall,
    InvalidTools,
    MessageOrder,
    PayloadTooLarge,
)

MAX_MESSAGE = 1000
MAX_RETRY_AFTER_S = 30
_MAX_DETAILS = 3
# The faults of a request. What is left of 4xx is between the operator and the upstream: keys, money, paths, limits.
_REQUEST_FAULTS = frozenset({400, 404, 413, 415, 422})
_BY_TYPE: dict[str, type[DomainError]] = {
    error.type: error
    for error in (
        MessageOrder,
        InvalidAssistantMessage,
        InvalidFunctionCall,
        InvalidTools,
        InvalidFile,
        InvalidDocument,
    )
}


@dataclass(frozen=True, slots=True)
class _Told:
    """What an error's body says."""

    message: str | None = None
    type: str | None = None
    param: str | None = None


def refusal(status: int, headers: Mapping[str, str], body: bytes, *, secret: str | None) -> Exception:
    """Return what to raise for an answer other than 200: an ApiError, or BackendUnavailable.

    body: its beginning. secret: never part of a message, whatever the upstream repeats.
    """
    told = _told(body)
    text = told.message or f"the upstream answered HTTP {status}"
    if secret:
        text = text.replace(secret, "…")
    if status in _REQUEST_FAULTS:
        return _api_error(status, told, _bounded(text))
    return BackendUnavailable(
        f"HTTP {status} from the upstream: {_bounded(text)}",
        retry_after_s=_retry_after_s(headers.get("retry-after", "")) if status in {429, 503} else 1,
    )


def failure_in_stream(error: Any, *, secret: str | None) -> Exception:
    """Return what to raise for an error object that came as the first event of a stream. See `refusal`."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return refusal(status, {}, msgspec.json.encode({"error": error}), secret=secret)


def _api_error(status: int, told: _Told, text: str) -> ApiError:
    if status == 413:
        return PayloadTooLarge(text)
    kind = _BY_TYPE.get(told.type or "", InvalidArguments)
    return kind(text, param=told.param)


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def _retry_after_s(value: str) -> int:
    """Return the seconds that the upstream asks for, within bounds; a date is not read."""
    seconds = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 1
    return max(1, min(seconds, MAX_RETRY_AFTER_S))


def _told(body: bytes) -> _Told:
    """Read an error's body in any of the forms that are in circulation; nothing of one that is in none."""
    try:
        value = msgspec.json.decode(body)
    except UNREADABLE:
        return _Told()
    if not isinstance(value, dict):
        return _Told()
    inner = value.get("error")
    if isinstance(inner, str):
        return _Told(inner)
    told = inner if isinstance(inner, dict) else value
    message = told.get("message", value.get("detail"))
    if isinstance(message, dict):  # an older form of Mistral's
        message = message.get("detail")
    if isinstance(message, list):
        message = "; ".join(map(_detail, message[:_MAX_DETAILS]))
    return _Told(
        message=message if isinstance(message, str) and message else None,
        type=_short_text(told.get("type")),
        param=_short_text(told.get("param")),
    )


def _detail(item: Any) -> str:
    """Return one item of a 422 in words: `messages.0.role: Field required`."""
    if not isinstance(item, dict):
        return str(item)
    loc = item.get("loc")
    where = [str(part) for part in loc if part != "body"] if isinstance(loc, list) else []
    return ": ".join(filter(None, [".".join(where), str(item.get("msg", ""))]))


def _short_text(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 100 else None
