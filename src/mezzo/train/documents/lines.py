"""One line of training data: Mistral's fine-tuning format, read with the wire's own types.

`{"messages": [...], "tools": [...]}`; an assistant message may have a `weight` of 0, which leaves it out of the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.messages import AssistantMessage

_FIELDS = ("messages", "tools")
_MODEL = "documents"  # a request names one; no prompt shows it


class InvalidLine(Exception):
    """A line that cannot be learnt from; the message names the field, and the reader of the file names the line."""


@dataclass(frozen=True)
class Conversation:
    """A line's conversation.

    answers   positions of the assistant messages to learn
    """

    request: ChatCompletionRequest
    answers: tuple[int, ...]


def parse_line(line: bytes) -> Conversation:
    """Read one line. Raises: InvalidLine."""
    try:
        value = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidLine(f"not JSON: {str(error).replace(' line 1 column', ' column')}") from None
    if not isinstance(value, dict):
        raise InvalidLine("not a JSON object with `messages`")
    if unknown := [name for name in value if name not in _FIELDS]:
        raise InvalidLine(f"{unknown[0][:100]}: not a field of the format, which has {' and '.join(_FIELDS)}")
    value, left_out = _without_weights(value)
    try:
        request = ChatCompletionRequest.model_validate({"model": _MODEL, **value})
    except ValidationError as error:
        raise InvalidLine(_words(error, value)) from None
    said = [i for i, message in enumerate(request.messages) if isinstance(message, AssistantMessage)]
    answers = tuple(position for position in said if position not in left_out)
    _check(request, said, answers)
    return Conversation(request, answers)


def _without_weights(value: dict[str, Any]) -> tuple[dict[str, Any], set[int]]:
    """Take `weight`, which the wire does not know, out of assistant messages; return the places of those of 0."""
    messages = value.get("messages")
    left_out: set[int] = set()
    if not isinstance(messages, list):
        return value, left_out
    plain = []
    for position, message in enumerate(messages):
        if isinstance(message, dict) and message.get("role") == "assistant" and "weight" in message:
            weight = message["weight"]
            if isinstance(weight, bool) or weight not in (0, 1):
                raise InvalidLine(f"messages[{position}].weight: must be 0 or 1")
            if not weight:
                left_out.add(position)
            plain.append({name: item for name, item in message.items() if name != "weight"})
        else:
            plain.append(message)
    return {**value, "messages": plain}, left_out


def _check(request: ChatCompletionRequest, said: list[int], answers: tuple[int, ...]) -> None:
    if not said:
        raise InvalidLine("messages: no assistant message, so nothing to learn")
    last = len(request.messages) - 1
    if said[-1] != last:
        role = request.messages[last].role
        raise InvalidLine(f"messages[{last}].role: the last message is the answer to learn, not {role}'s")
    if not answers:
        raise InvalidLine("messages: every assistant message has weight 0, so nothing to learn")
    for position in said:
        message = request.messages[position]
        if isinstance(message, AssistantMessage) and message.prefix:
            raise InvalidLine(
                f"messages[{position}].prefix: only a request has one, an answer to learn is whole"
            )


def _words(error: ValidationError, value: Any) -> str:
    """Return a mistake in one line: the field as a reader of the file finds it, and what is wrong with it.

    The deepest one: of a list that is neither text nor valid chunks, it tells what is wrong with the chunk.
    """
    found = [
        (_field(item["loc"], value, is_missing=item["type"] == "missing"), item["msg"])
        for item in error.errors(include_url=False, include_input=False)
    ]
    field, words = max(found, key=lambda one: len(one[0]))
    return f"{_name(field)}: {words}"


def _field(loc: tuple[int | str, ...], value: Any, *, is_missing: bool) -> list[int | str]:
    """Return the steps of a place that lead into the value; others name a member of a union: `user`, `str`."""
    field: list[int | str] = []
    for number, part in enumerate(loc):
        if isinstance(part, int) and isinstance(value, list):
            value = value[part]
        elif isinstance(value, dict) and (part in value or (is_missing and number == len(loc) - 1)):
            value = value.get(part)
        else:
            continue
        field.append(part)
    return field


def _name(field: list[int | str]) -> str:
    steps = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in field)
    return steps.removeprefix(".") or "the line"
