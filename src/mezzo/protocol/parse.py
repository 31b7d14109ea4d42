"""From the bytes of a body, or what stands after the `?`, to a wire type, or to the items of a 422.

Items are pydantic's, with `loc` starting at `body` or `query`, without `url`, and bounded: an answer never repeats
a large input, nor anything that looks like a credential.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from mezzo.protocol.errors import RequestInvalid

MAX_ITEMS = 20
MAX_ERRORS = 10_000
MAX_EXCERPT_LENGTH = 256

_M = TypeVar("_M", bound=BaseModel)
_Part = Literal["body", "query"]
_JSON_ERROR = re.compile(r"(?P<reason>.*) at line (?P<line>\d+) column (?P<column>\d+)", re.DOTALL)
_SECRET_NAME = re.compile(r"(^|[_-])(api[_-]?key|secret|password|token|authorization)$", re.IGNORECASE)
_REDACTED = "[redacted]"


def parse_body(model: type[_M], body: bytes) -> _M:
    """Parse JSON bytes into `model`.

    The JSON is RFC 8259's: UTF-8, no NaN, no infinities, no lone surrogates, nested 200 levels at most.
    Raises: RequestInvalid, and nothing else, whatever the bytes.
    """
    if not body:
        raise RequestInvalid([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RequestInvalid([_json_item(body, str(error))]) from None
    try:
        # from_attributes only chooses the wording for what is no object: `model_attributes_type`, which does
        # not name our classes.
        return model.model_validate(value, from_attributes=True)
    except ValidationError as error:
        raise RequestInvalid(_items(error, value, "body")) from None


def parse_query(model: type[_M], pairs: Iterable[tuple[str, str]]) -> _M:
    """Parse names and values from a URL into `model`.

    A name that comes once is a text, one that comes several times a list of texts. Raises: RequestInvalid.
    """
    values: dict[str, str | list[str]] = {}
    for name, value in pairs:
        known = values.get(name)
        if known is None:
            values[name] = value
        else:
            values[name] = [*([known] if isinstance(known, str) else known), value]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RequestInvalid(_items(error, values, "query")) from None


def _items(error: ValidationError, value: Any, part: _Part) -> list[dict[str, Any]]:
    # pydantic builds all items or none, at some microseconds each: two megabytes of wrong list members would
    # hold up the server for seconds.
    num_errors = error.error_count()
    if num_errors > MAX_ERRORS:
        message = f"Value error, {num_errors} parts of the {part} do not fit, too many to list"
        return [{"type": "value_error", "loc": [part], "msg": message, "input": _excerpt(value)}]
    return [_item(item, part) for item in error.errors(include_url=False)[:MAX_ITEMS]]


def _json_item(body: bytes, message: str) -> dict[str, Any]:
    reason, position = message, 0
    if match := _JSON_ERROR.fullmatch(message):
        reason = match["reason"]
        lines = body.split(b"\n", int(match["line"]) - 1)
        position = sum(len(line) + 1 for line in lines[:-1]) + max(0, int(match["column"]) - 1)
    return {
        "type": "json_invalid",
        "loc": ["body", position],
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": reason},
    }


def _item(error: Mapping[str, Any], part: _Part) -> dict[str, Any]:
    loc = error["loc"]
    is_secret = any(isinstance(name, str) and _SECRET_NAME.search(name) for name in loc)
    item = {
        "type": error["type"],
        "loc": [part, *(_cut(name) if isinstance(name, str) else name for name in loc)],
        "msg": _cut(error["msg"]),
        "input": _REDACTED if is_secret else _excerpt(error["input"]),
    }
    if "ctx" in error:
        item["ctx"] = {key: _excerpt(value) for key, value in error["ctx"].items()}
    return item


def _cut(text: str) -> str:
    return text if len(text) <= MAX_EXCERPT_LENGTH else text[:MAX_EXCERPT_LENGTH] + "…"


def _excerpt(value: Any) -> Any:
    """Return `value` if it is short as JSON, else the beginning of that JSON; credentials masked."""
    if isinstance(value, str):
        return _cut(value)
    text = ""
    for piece in _json_pieces(value):
        text += piece
        if len(text) > MAX_EXCERPT_LENGTH:
            return _cut(text)
    return json.loads(text)


def _json_pieces(value: Any) -> Iterator[str]:
    """Write JSON piece by piece, so that the reader can stop early however large `value` is."""
    if isinstance(value, dict):
        yield "{"
        for position, (key, member) in enumerate(value.items()):
            yield f"{', ' if position else ''}{_quote(str(key))}: "
            yield from _json_pieces(_REDACTED if _SECRET_NAME.search(str(key)) else member)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for position, member in enumerate(value):
            if position:
                yield ", "
            yield from _json_pieces(member)
        yield "]"
    elif isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value)):
        yield _quote(str(value))
    else:
        yield json.dumps(value)


def _quote(text: str) -> str:
    return json.dumps(text[: MAX_EXCERPT_LENGTH + 1], ensure_ascii=False)
