"""The rules on a conversation: which role may follow which, and which tool result belongs to which call.

Wording and codes are the reference API's; clients match on them. Structure is checked before content, as the
official validator does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from mezzo.protocol.errors import InvalidAssistantMessage, InvalidFunctionCall, MessageOrder
from mezzo.protocol.messages import AssistantMessage, Message, ToolMessage
from mezzo.protocol.tools import ToolCall

_NEXT_ROLES = {
    "system": {"system", "user", "assistant"},
    "user": {"user", "system", "assistant"},
    "assistant": {"assistant", "user", "tool"},
    "tool": {"tool", "assistant"},
}
_TOOL_CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NO_ID = "null"


def validate_messages(messages: Sequence[Message], *, allow_user_after_tool: bool = False) -> None:
    """Check order, tool results, prefix and names of a conversation.

    allow_user_after_tool: newer templates know a user message right after a tool's; the reference refuses it.
    Raises: MessageOrder, InvalidAssistantMessage or InvalidFunctionCall for the first rule that is broken.
    """
    _check_ends(messages)
    _check_order(messages, allow_user_after_tool=allow_user_after_tool)
    _check_number_of_results(messages)
    for position, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            _check_assistant(message, is_last=position == len(messages) - 1)
        elif isinstance(message, ToolMessage):
            _check_tool(message)
    _check_result_ids(messages)


def is_function_name(name: str) -> bool:
    """Whether a function may have this name, in tools, calls and results alike."""
    return _FUNCTION_NAME.fullmatch(name) is not None


def is_tool_call_id(tool_call_id: str) -> bool:
    """Whether the API takes this id of a call."""
    return _TOOL_CALL_ID.fullmatch(tool_call_id) is not None


def check_function_name(name: str) -> None:
    """Raises: InvalidFunctionCall unless `name` can be a function's."""
    if not is_function_name(name):
        raise InvalidFunctionCall(
            f"Function name was {name} but must be a-z, A-Z, 0-9, or contain underscores and dashes, "
            "with a maximum length of 64."
        )


def _check_ends(messages: Sequence[Message]) -> None:
    if not messages:
        raise MessageOrder("Conversation must have at least one message")
    last = messages[-1]
    if len(messages) == 1:
        if last.role not in {"user", "system"}:
            raise MessageOrder("Conversation must start with a user message or system message")
        return
    is_prefix = isinstance(last, AssistantMessage) and last.prefix
    if last.role not in {"user", "tool"} and not is_prefix:
        raise MessageOrder(
            f"Expected last role User or Tool (or Assistant with prefix True) for serving but got {last.role}"
        )


def _check_order(messages: Sequence[Message], *, allow_user_after_tool: bool) -> None:
    for previous, current in pairwise(messages):
        is_allowed = current.role in _NEXT_ROLES[previous.role]
        if allow_user_after_tool and (previous.role, current.role) == ("tool", "user"):
            is_allowed = True
        if not is_allowed:
            raise MessageOrder(f"Unexpected role '{current.role}' after role '{previous.role}'")


def _check_number_of_results(messages: Sequence[Message]) -> None:
    num_missing = 0
    for message in messages:
        if isinstance(message, ToolMessage):
            num_missing -= 1
        elif isinstance(message, AssistantMessage):
            if num_missing != 0:
                break
            num_missing = len(message.tool_calls or ())
    if num_missing != 0:
        raise MessageOrder("Not the same number of function calls and responses")


def _check_result_ids(messages: Sequence[Message]) -> None:
    """Check that each result answers a call of the assistant message before it, and each call only once."""
    called: set[str] = set()
    answered: set[str] = set()
    for message in messages:
        if isinstance(message, AssistantMessage):
            called, answered = set(), set()
            for call in message.tool_calls or ():
                if call.id in called:
                    raise MessageOrder(f"Duplicate tool call id {call.id} in assistant message")
                called.add(call.id)
        elif isinstance(message, ToolMessage) and message.tool_call_id is not None:
            if message.tool_call_id in answered:
                raise MessageOrder(f"Duplicate tool call id {message.tool_call_id} in tool results")
            if message.tool_call_id not in called:
                raise MessageOrder(f"Unexpected tool call id {message.tool_call_id} in tool results")
            answered.add(message.tool_call_id)


def _check_assistant(message: AssistantMessage, *, is_last: bool) -> None:
    if not message.content and not message.tool_calls:
        raise InvalidAssistantMessage(
            "Assistant message must have either content or tool_calls, but not none."
        )
    for call in message.tool_calls or ():
        _check_call(call)
    if message.prefix and not is_last:
        raise InvalidAssistantMessage("Assistant message with prefix True must be last message")


def _check_call(call: ToolCall) -> None:
    if call.id == _NO_ID:
        raise InvalidFunctionCall("Tool call id has to be defined in serving mode.")
    _check_tool_call_id(call.id)
    check_function_name(call.function.name)


def _check_tool(message: ToolMessage) -> None:
    if message.name is not None:
        check_function_name(message.name)
    if message.tool_call_id is None:
        raise InvalidFunctionCall("Tool call id has to be defined.")
    _check_tool_call_id(message.tool_call_id)


def _check_tool_call_id(tool_call_id: str) -> None:
    if not is_tool_call_id(tool_call_id):
        raise InvalidFunctionCall(
            f"Tool call id was {tool_call_id} but must be a-z, A-Z, 0-9, with a length of 9."
        )
