"""From wire messages to the plain conversation a chat template is given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mezzo.prompt.safety import SAFETY_PROMPT
from mezzo.protocol.content import text_of
from mezzo.protocol.messages import AssistantMessage, Message, ToolMessage

# Between messages of one role that follow each other, as the reference joins them.
_SEPARATOR = "\n\n"


def conversation(
    messages: Sequence[Message], *, safe_prompt: bool, renders_tool_calls: bool
) -> list[dict[str, Any]]:
    """Return messages as dicts with `role` and string `content`, in order.

    Neighbours of the same role are merged, except tool results. Calls of the assistant stand in `tool_calls` for a
    template that renders them, else in the text as JSON between `<tool_call>` tags: never dropped.
    Expects messages that passed `validate_messages` and `check_features`.
    """
    result: list[dict[str, Any]] = []
    if safe_prompt:
        result.append({"role": "system", "content": SAFETY_PROMPT})
    for message in messages:
        entry: dict[str, Any] = {"role": message.role, "content": text_of(message.content)}
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


def _call(call_id: str | None, name: str, arguments: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except ValueError:
            parsed = arguments  # what a model once wrote may be no JSON; it is shown to it as it was
        arguments = parsed
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _calls_as_text(calls: list[dict[str, Any]]) -> str:
    listed = [call["function"] for call in calls]
    return f"<tool_call>{json.dumps(listed, ensure_ascii=False)}</tool_call>"


def _can_merge(last: dict[str, Any], entry: dict[str, Any]) -> bool:
    return last["role"] == entry["role"] != "tool" and "tool_calls" not in last and "tool_calls" not in entry


def _join(first: str, second: str, separator: str) -> str:
    return f"{first}{separator}{second}" if first and second else first or second
