"""From wire messages to the plain conversation a chat template is given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mezzo.prompt.content import content_parts, where_is
from mezzo.prompt.instructions import CALL_TAG, END_CALL_TAG
from mezzo.prompt.parts import NO_ATTACHMENTS, Attachments, ImagePart, TextPart
from mezzo.protocol.errors import InvalidArguments
from mezzo.protocol.messages import AssistantMessage, Message, ToolMessage

# Between messages of one role that follow each other, as the reference joins them.
_SEPARATOR = "\n\n"

TemplateContent = str | list[dict[str, str]]
"""Text, or items of type `text` and `image` where there are images: the form that templates know."""


def conversation(
    messages: Sequence[Message],
    attachments: Attachments = NO_ATTACHMENTS,
    *,
    instructions: Sequence[str] = (),
    renders_tool_calls: bool,
) -> list[dict[str, Any]]:
    """Return messages as dicts with `role` and `content`, in order.

    `instructions` are system messages in front. Neighbours of the same role are merged, except tool results. Calls of
    the assistant stand in `tool_calls` for a template that renders them, else in the text as JSON between
    `<tool_call>` tags: never dropped.
    Expects messages that passed `validate_messages` and `check_features`.
    Raises: InvalidArguments for an image, or a reasoning trace, where templates have no place for it.
    """
    result: list[dict[str, Any]] = []
    if instructions:
        result.append({"role": "system", "content": _SEPARATOR.join(instructions)})
    for position, message in enumerate(messages):
        entry: dict[str, Any] = {"role": message.role, "content": _content(message, position, attachments)}
        if isinstance(message, AssistantMessage) and message.tool_calls:
            calls = [
                _call(call.id, call.function.name, call.function.arguments) for call in message.tool_calls
            ]
            if renders_tool_calls:
                entry["tool_calls"] = calls
            else:
                entry["content"] = _join(entry["content"], _calls_as_text(calls), "\n")
        if isinstance(message, ToolMessage):
            entry |= {"tool_call_id": message.tool_call_id, "name": message.name}
        if result and _can_merge(result[-1], entry):
            result[-1]["content"] = _join(result[-1]["content"], entry["content"], _SEPARATOR)
        else:
            result.append(entry)
    return result


def _content(message: Message, position: int, attachments: Attachments) -> TemplateContent:
    content: TemplateContent = ""
    for chunk, part in content_parts(message.content, position, attachments):
        if isinstance(part, TextPart):
            content = _join(content, part.text, "")
        elif isinstance(part, ImagePart) and message.role == "user":
            content = _join(content, [{"type": "image"}], "")
        else:
            kind = "image" if isinstance(part, ImagePart) else "thinking"
            raise InvalidArguments(
                f"{where_is(position, chunk)}: {kind} content is not supported in {message.role} messages "
                "of this model",
                param="messages",
            )
    return content


def _call(call_id: str | None, name: str, arguments: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            parsed = arguments  # what a model once wrote may be no JSON; it is shown to it as it was
        arguments = parsed
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _calls_as_text(calls: list[dict[str, Any]]) -> str:
    listed = [call["function"] for call in calls]
    return f"{CALL_TAG}{json.dumps(listed, ensure_ascii=False)}{END_CALL_TAG}"


def _can_merge(last: dict[str, Any], entry: dict[str, Any]) -> bool:
    return last["role"] == entry["role"] != "tool" and "tool_calls" not in last and "tool_calls" not in entry


def _join(first: TemplateContent, second: TemplateContent, separator: str) -> TemplateContent:
    """Join two contents; `separator` goes between texts that meet."""
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}{separator}{second}"
    before, after = _items(first), _items(second)
    if before[-1]["type"] == after[0]["type"] == "text":
        joined = {"type": "text", "text": f"{before[-1]['text']}{separator}{after[0]['text']}"}
        return [*before[:-1], joined, *after[1:]]
    return [*before, *after]


def _items(content: TemplateContent) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
