"""Conversation rules: the contract's wording, and agreement with the official validator."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import mistral_common.exceptions as official_errors
import mistral_common.protocol.instruct.messages as official
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mistral_common.protocol.instruct.validator import MistralRequestValidatorV11, ValidationMode
from pydantic import TypeAdapter

from mezzo.prompt.validate import check_function_name, validate_messages
from mezzo.protocol.errors import DomainError, InvalidAssistantMessage, InvalidFunctionCall, MessageOrder
from mezzo.protocol.messages import Message

Raw = dict[str, Any]
MESSAGES: TypeAdapter[list[Message]] = TypeAdapter(list[Message])

ID, OTHER_ID = "k3ZpQ9aB1", "vCdsSLp87"
SYSTEM: Raw = {"role": "system", "content": "Be brief."}
USER: Raw = {"role": "user", "content": "Hi"}
ASSISTANT: Raw = {"role": "assistant", "content": "Hello"}
PREFIX: Raw = {"role": "assistant", "content": "He", "prefix": True}


def calls(*ids: str, name: str = "f", **rest: Any) -> Raw:
    made = [{"id": call_id, "function": {"name": name, "arguments": "{}"}} for call_id in ids]
    return {"role": "assistant", "content": "", "tool_calls": made, **rest}


def result(call_id: str | None, **rest: Any) -> Raw:
    return {"role": "tool", "content": "4", "tool_call_id": call_id, **rest}


def check(*messages: Raw, **options: bool) -> None:
    validate_messages(MESSAGES.validate_python(list(messages)), **options)


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [SYSTEM],
        [SYSTEM, SYSTEM, USER],
        [USER, USER],
        [USER, SYSTEM, USER],
        [USER, ASSISTANT, ASSISTANT, USER],
        [ASSISTANT, USER],
        [USER, PREFIX],
        [SYSTEM, PREFIX],
        [USER, calls(ID), result(ID)],
        [USER, calls(ID, content="Let me see."), result(ID)],
        [USER, calls(ID, content=[]), result(ID)],
        [USER, calls(ID, OTHER_ID), result(OTHER_ID), result(ID), ASSISTANT, USER],
        [USER, calls(ID), result(ID), ASSISTANT, USER, calls(ID), result(ID, name="f")],
        [USER, calls(ID), result(ID), PREFIX],
    ],
)
def test_conversations_that_are_in_order(messages: list[Raw]) -> None:
    check(*messages)


EXPECTED_LAST = "Expected last role User or Tool (or Assistant with prefix True) for serving but got "
NOT_SAME = "Not the same number of function calls and responses"
START = "Conversation must start with a user message or system message"
BAD_NAME = (
    "Function name was get stock but must be a-z, A-Z, 0-9, or contain underscores and dashes, "
    "with a maximum length of 64."
)
NEITHER = "Assistant message must have either content or tool_calls, but not none."


@pytest.mark.parametrize(
    ("messages", "error", "wording"),
    [
        ([], MessageOrder, "Conversation must have at least one message"),
        ([ASSISTANT], MessageOrder, START),
        ([PREFIX], MessageOrder, START),
        ([result(ID)], MessageOrder, START),
        ([USER, ASSISTANT], MessageOrder, EXPECTED_LAST + "assistant"),
        ([USER, SYSTEM], MessageOrder, EXPECTED_LAST + "system"),
        ([USER, calls(ID)], MessageOrder, EXPECTED_LAST + "assistant"),
        (
            [USER, calls(ID), result(ID), USER],
            MessageOrder,
            "Unexpected role 'user' after role 'tool'",
        ),
        ([USER, result(ID)], MessageOrder, "Unexpected role 'tool' after role 'user'"),
        ([ASSISTANT, SYSTEM, USER], MessageOrder, "Unexpected role 'system' after role 'assistant'"),
        ([USER, calls(ID, OTHER_ID), result(ID)], MessageOrder, NOT_SAME),
        ([USER, calls(ID), result(ID), result(OTHER_ID)], MessageOrder, NOT_SAME),
        ([USER, calls(ID), ASSISTANT, USER], MessageOrder, NOT_SAME),
        ([USER, calls(ID), USER], MessageOrder, NOT_SAME),
        ([USER, calls(ID, prefix=True)], MessageOrder, NOT_SAME),
        ([result(ID), PREFIX], MessageOrder, NOT_SAME),
        (
            [USER, calls(ID), result(OTHER_ID)],
            MessageOrder,
            f"Unexpected tool call id {OTHER_ID} in tool results",
        ),
        (
            [USER, calls(ID, OTHER_ID), result(ID), result(ID)],
            MessageOrder,
            f"Duplicate tool call id {ID} in tool results",
        ),
        (
            [USER, calls(ID, ID), result(ID), result(ID)],
            MessageOrder,
            f"Duplicate tool call id {ID} in assistant message",
        ),
        (
            [USER, PREFIX, USER],
            InvalidAssistantMessage,
            "Assistant message with prefix True must be last message",
        ),
        ([USER, {"role": "assistant"}, USER], InvalidAssistantMessage, NEITHER),
        ([USER, {**ASSISTANT, "content": ""}, USER], InvalidAssistantMessage, NEITHER),
        ([USER, {**ASSISTANT, "content": [], "tool_calls": []}, USER], InvalidAssistantMessage, NEITHER),
        ([USER, {**PREFIX, "content": ""}], InvalidAssistantMessage, NEITHER),
        ([USER, calls(ID), result(None)], InvalidFunctionCall, "Tool call id has to be defined."),
        (
            [USER, calls("null"), result(ID)],
            InvalidFunctionCall,
            "Tool call id has to be defined in serving mode.",
        ),
        *(
            (
                [USER, calls(bad), result(bad)],
                InvalidFunctionCall,
                f"Tool call id was {bad} but must be a-z, A-Z, 0-9, with a length of 9.",
            )
            for bad in ("call_1", "k3ZpQ9aB", "k3ZpQ9aB12", "k3ZpQ9aB-", "k3ZpQ9aB1\n", "k3ZpQ9aBé", "")
        ),
        (
            [USER, calls(ID), result("bad")],
            InvalidFunctionCall,
            "Tool call id was bad but must be a-z, A-Z, 0-9, with a length of 9.",
        ),
        ([USER, calls(ID, name="get stock"), result(ID)], InvalidFunctionCall, BAD_NAME),
        ([USER, calls(ID), result(ID, name="get stock")], InvalidFunctionCall, BAD_NAME),
    ],
)
def test_broken_rules_have_the_contracts_wording(
    messages: list[Raw], error: type[DomainError], wording: str
) -> None:
    with pytest.raises(DomainError) as caught:
        check(*messages)
    assert type(caught.value) is error
    assert caught.value.message == wording


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (MessageOrder, "invalid_request_message_order", "3230"),
        (InvalidAssistantMessage, "invalid_request_assistant_message", "3240"),
        (InvalidFunctionCall, "invalid_function_call", "3280"),
    ],
)
def test_errors_have_the_contracts_type_and_code(error: type[DomainError], kind: str, code: str) -> None:
    assert error("x").body() == {
        "object": "error",
        "message": "x",
        "type": kind,
        "param": None,
        "code": code,
        "raw_status_code": 400,
    }


def test_user_after_tool_can_be_allowed() -> None:
    check(USER, calls(ID), result(ID), USER, allow_user_after_tool=True)
    with pytest.raises(MessageOrder, match="Unexpected role 'tool' after role 'user'"):
        check(USER, result(ID), allow_user_after_tool=True)


@pytest.mark.parametrize("name", ["f", "get_stock-2", "A" * 64])
def test_function_names(name: str) -> None:
    check_function_name(name)


@pytest.mark.parametrize("name", ["", "A" * 65, "a b", "a.b", "é", "a\n"])
def test_names_that_no_function_can_have(name: str) -> None:
    with pytest.raises(InvalidFunctionCall, match="Function name was"):
        check_function_name(name)


def official_message(raw: Raw) -> Any:
    classes = {
        "system": official.SystemMessage,
        "user": official.UserMessage,
        "assistant": official.AssistantMessage,
        "tool": official.ToolMessage,
    }
    return classes[raw["role"]].model_validate({**raw, "content": raw.get("content")})


def official_accepts(messages: list[Raw]) -> bool:
    validator: Any = MistralRequestValidatorV11(mode=ValidationMode.serving)
    try:
        validator.validate_messages([official_message(raw) for raw in messages])
    except official_errors.MistralCommonException:
        return False
    return True


def mezzo_accepts(messages: list[Raw], **options: bool) -> bool:
    try:
        check(*messages, **options)
    except DomainError:
        return False
    return True


def is_known_difference(messages: list[Raw]) -> bool:
    """Conversations the official validator looks at less closely than the live API, or than its own rules.

    It takes a system message at the end of a conversation and an assistant message that says nothing, and it
    does not count the calls or results of the very first message.
    """
    if not messages:
        return False
    ends_with_system = len(messages) > 1 and messages[-1]["role"] == "system"
    says_nothing = any(
        raw["role"] == "assistant" and not raw["content"] and not raw.get("tool_calls") for raw in messages
    )
    first = messages[0]
    starts_uncounted = first["role"] == "tool" or bool(first.get("tool_calls"))
    return ends_with_system or says_nothing or starts_uncounted


ids = st.sampled_from([ID, OTHER_ID, ID, OTHER_ID, "aaaaaaaaa", "call_1", "null"])
names = st.sampled_from(["f", "f", "f", "f", "not a name"])
one_message = st.one_of(
    st.just(SYSTEM),
    st.just(USER),
    st.just(ASSISTANT),
    st.just(PREFIX),
    st.builds(
        lambda made, name, prefix: calls(*made, name=name, prefix=prefix),
        st.lists(ids, max_size=3),
        names,
        st.booleans(),
    ),
    st.builds(lambda call_id, name: result(call_id, name=name), ids, names),
)


@st.composite
def nearly_valid_conversations(draw: st.DrawFn) -> list[Raw]:
    """Whole turns in order, then at most one message taken out, put in or moved."""
    messages = draw(st.lists(st.just(SYSTEM), max_size=1))
    for _ in range(draw(st.integers(1, 3))):
        turn = draw(st.sampled_from(["answer", "one call", "two calls"]))
        messages += [USER]
        if turn == "one call":
            messages += [calls(ID), result(ID)]
        elif turn == "two calls":
            messages += [calls(ID, OTHER_ID), result(OTHER_ID), result(ID)]
        messages += [ASSISTANT]
    messages += draw(st.sampled_from([[USER], [PREFIX], [USER, PREFIX], [USER, calls(ID), result(ID)]]))
    change = draw(st.sampled_from(["none", "remove", "insert", "swap"]))
    position = draw(st.integers(0, len(messages) - 1))
    if change == "remove":
        del messages[position]
    elif change == "insert":
        messages.insert(position, draw(one_message))
    elif change == "swap":
        messages[position], messages[-1] = messages[-1], messages[position]
    return messages


@given(st.one_of(st.lists(one_message, max_size=5), nearly_valid_conversations()))
@settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.filter_too_much])
def test_accepts_and_refuses_what_the_official_validator_does(messages: list[Raw]) -> None:
    assume(not is_known_difference(messages))
    # The newest official rules allow a user message after a tool's; so does our switch.
    assert mezzo_accepts(messages, allow_user_after_tool=True) == official_accepts(messages)
    has_user_after_tool = any(
        (before["role"], after["role"]) == ("tool", "user") for before, after in pairwise(messages)
    )
    assert mezzo_accepts(messages) == (official_accepts(messages) and not has_user_after_tool)


@pytest.mark.parametrize(
    "messages",
    [[USER, SYSTEM], [USER, {**ASSISTANT, "content": ""}, USER], [result(ID), PREFIX]],
)
def test_known_differences_are_real(messages: list[Raw]) -> None:
    assert is_known_difference(messages)
    assert official_accepts(messages)
    assert not mezzo_accepts(messages)


def test_results_for_calls_of_the_first_message_are_counted() -> None:
    messages = [calls(ID), result(ID)]
    assert is_known_difference(messages)
    assert mezzo_accepts(messages)
    assert not official_accepts(messages)
