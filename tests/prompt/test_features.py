"""Every field of the request is honoured, refused by name, or documented as without effect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mezzo.prompt.features import FIELDS, MAX_SCHEMA_NODES, MAX_TOOLS, check_features, check_reasoning_effort
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import (
    DomainError,
    FeatureNotEnabled,
    InvalidArguments,
    InvalidFunctionCall,
    InvalidTools,
)

CHAT = frozenset({"completion_chat"})
EVERYTHING = CHAT | {"vision", "documents", "audio", "reasoning", "function_calling"}
FUNCTION: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {}}}
BASE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}

HONOURED: dict[str, list[Any]] = {
    "model": ["m"],
    "messages": [
        [{"role": "system", "content": [{"type": "text", "text": "x"}]}, {"role": "user", "content": None}],
        [
            {"role": "user", "content": []},
            {
                "role": "assistant",
                "tool_calls": [{"id": "k3ZpQ9aB1", "function": {"name": "f", "arguments": {}}}],
            },
            {"role": "tool", "content": [{"type": "text", "text": "4"}], "tool_call_id": "k3ZpQ9aB1"},
            {"role": "assistant", "content": "So", "prefix": True},
        ],
    ],
    "temperature": [None, 0, 1.5],
    "top_p": [None, 0.1, 1],
    "max_tokens": [None, 0, 10],
    "stream": [True, False],
    "stop": [None, "x", ["x", "y"]],
    "random_seed": [None, 0, 7],
    "metadata": [None, {"a": 1}],
    "response_format": [
        {},
        {"type": "text"},
        {"type": "text", "json_schema": None},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}},
    ],
    "tools": [None, []],
    "tool_choice": ["auto", "none"],
    "presence_penalty": [None, -2, 2],
    "frequency_penalty": [None, -2, 2],
    "min_tokens": [None, 0],
    "repetition_penalty": [None, 1],
    "top_k": [None],
    "logprobs": [None, False],
    "top_logprobs": [None, 0],
    "prompt_logprobs": [None, False],
    "top_prompt_logprobs": [None, 0],
    "n": [None, 1, 16],
    "prediction": [{}, {"type": "content", "content": ""}, {"type": "content", "content": "x"}],
    "parallel_tool_calls": [True, False],
    "reasoning_effort": [None],
    "prompt_mode": [None],
    "guardrails": [None, []],
    "prompt_cache_key": [None, "k"],
    "service_tier": [None, "auto", "standard_only"],
    "safe_prompt": [True, False],
    "stream_options": [None, {}, {"include_usage": True, "stream_tool_calls": True}],
}

UNSUPPORTED = "is not supported by this server"
DISABLED = "is not enabled for this model"
SCHEMA_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}

REFUSED: dict[str, list[tuple[Any, str]]] = {
    "tools": [([FUNCTION], f"Function calling {DISABLED}")],
    "min_tokens": [(1, f"min_tokens {UNSUPPORTED}")],
    "repetition_penalty": [(1.1, f"repetition_penalty {UNSUPPORTED}")],
    "top_k": [(0, f"top_k sampling {DISABLED}"), (40, f"top_k sampling {DISABLED}")],
    "logprobs": [(True, "Logprobs are not enabled for this model")],
    "top_logprobs": [(1, "Logprobs are not enabled for this model")],
    "prompt_logprobs": [(True, f"prompt_logprobs {UNSUPPORTED}")],
    "top_prompt_logprobs": [(1, f"top_prompt_logprobs {UNSUPPORTED}")],
    "reasoning_effort": [
        (effort, f"reasoning_effort {DISABLED}")
        for effort in ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    ],
    "prompt_mode": [("reasoning", f"prompt_mode {DISABLED}")],
    "guardrails": [([{"block_on_error": False}], f"guardrails {UNSUPPORTED}")],
}


def request(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({**BASE, **fields})


def refusal(capabilities: frozenset[str] = CHAT, **fields: Any) -> DomainError:
    with pytest.raises(DomainError) as caught:
        check_features(request(**fields), capabilities)
    return caught.value


def test_table_has_every_field_of_the_schema_once() -> None:
    assert [field.name for field in FIELDS] == list(ChatCompletionRequest.model_fields)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_each_field_behaves_as_the_table_says(field: Any) -> None:
    assert HONOURED[field.name], "every field has at least one value that goes through"
    is_refused_somehow = field.name in REFUSED or field.name == "messages"
    assert is_refused_somehow == (field.support in {"refused", "in part"})
    assert field.note


@pytest.mark.parametrize(("field", "value"), [(name, value) for name in HONOURED for value in HONOURED[name]])
def test_honoured_values_go_through(field: str, value: Any) -> None:
    check_features(request(**{field: value}), CHAT)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [(name, value, message) for name in REFUSED for value, message in REFUSED[name]],
)
def test_other_values_are_refused_by_name(field: str, value: Any, message: str) -> None:
    error = refusal(**{field: value})
    assert isinstance(error, InvalidArguments)
    assert error.body() == {
        "object": "error",
        "message": message,
        "type": "invalid_request_invalid_args",
        "param": field,
        "code": "3051",
        "raw_status_code": 400,
    }


CHUNKS: dict[str, dict[str, Any]] = {
    "image_url": {"type": "image_url", "image_url": "https://example.org/a.png"},
    "document_url": {"type": "document_url", "document_url": "https://example.org/a.pdf"},
    "file": {"type": "file", "file_id": "f"},
    "reference": {"type": "reference", "reference_ids": [1]},
    "thinking": {"type": "thinking", "thinking": []},
    "input_audio": {"type": "input_audio", "input_audio": "AAAA"},
    "resource": {"type": "resource", "uri": "r://a", "content": {"type": "text", "text": "x"}},
    "resource_link": {"type": "resource_link", "uri": "r://a"},
}


TAKEN = {
    ("user", "image_url"),
    ("user", "document_url"),
    ("tool", "image_url"),
    ("tool", "document_url"),
    ("assistant", "thinking"),
    ("system", "thinking"),
}


def message_with(role: str, kind: str) -> dict[str, Any]:
    message = {"role": role, "content": [{"type": "text", "text": "x"}, CHUNKS[kind]]}
    return message | ({"tool_call_id": "k3ZpQ9aB1"} if role == "tool" else {})


@pytest.mark.parametrize(("role", "kind"), sorted(TAKEN))
def test_chunks_that_a_model_can_read_go_through(role: str, kind: str) -> None:
    check_features(request(messages=[message_with(role, kind)]), EVERYTHING)


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        (role, kind)
        for role in ("user", "assistant", "tool")
        for kind in ("image_url", "document_url", "thinking")
        if (role, kind) not in TAKEN
    ],
)
def test_chunks_are_refused_in_roles_that_no_format_shows_them_in(role: str, kind: str) -> None:
    error = refusal(EVERYTHING, messages=[message_with(role, kind)])
    assert error.message == f"messages[0].content[1]: {kind} content is not supported in {role} messages"


@pytest.mark.parametrize("kind", CHUNKS)
@pytest.mark.parametrize("capabilities", [CHAT, EVERYTHING], ids=["chat", "everything"])
def test_chunks_that_are_not_text_are_refused_with_their_place(
    kind: str, capabilities: frozenset[str]
) -> None:
    if capabilities is EVERYTHING and any(taken == kind for _, taken in TAKEN):
        return
    messages = [{"role": "user", "content": "Hi"}, message_with("user", kind)]
    error = refusal(capabilities, messages=messages)
    is_a_lack_of_the_model = capabilities is CHAT and kind in {
        "image_url",
        "document_url",
        "thinking",
        "input_audio",
    }
    reason = DISABLED if is_a_lack_of_the_model else UNSUPPORTED
    assert error.message == f"messages[1].content[1]: {kind} content {reason}"
    assert isinstance(error, FeatureNotEnabled) == is_a_lack_of_the_model
    assert error.param == "messages"


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ({"type": "web_search"}, "WebSearchTool"),
        ({"type": "web_search_premium"}, "WebSearchPremiumTool"),
        ({"type": "code_interpreter"}, "CodeInterpreterTool"),
        ({"type": "image_generation"}, "ImageGenerationTool"),
        ({"type": "document_library", "library_ids": []}, "DocumentLibraryTool"),
        ({"type": "connector", "connector_id": "c"}, "CustomConnector"),
    ],
)
def test_hosted_tools_are_refused_as_the_reference_does(tool: dict[str, Any], name: str) -> None:
    error = refusal(tools=[tool], tool_choice="none")
    assert isinstance(error, InvalidTools)
    assert error.message == f"{name} connector is not supported"


def test_tools_that_may_not_be_called_are_accepted_up_to_the_limit() -> None:
    check_features(request(tools=[FUNCTION] * MAX_TOOLS, tool_choice="none"), CHAT)
    error = refusal(tools=[FUNCTION] * (MAX_TOOLS + 1), tool_choice="none")
    assert isinstance(error, InvalidTools)
    assert error.message == "Too many tools: 129, the maximum is 128."


def test_tool_names_are_checked() -> None:
    bad = {"type": "function", "function": {"name": "a b", "parameters": {}}}
    assert isinstance(refusal(tools=[bad], tool_choice="none"), InvalidFunctionCall)


NAMED = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize("choice", ["auto", "none", "any", "required", NAMED])
@pytest.mark.parametrize("parallel", [True, False])
def test_every_choice_of_a_tool_goes_through(choice: Any, parallel: bool) -> None:
    strict = {"type": "function", "function": {"name": "g", "parameters": {}, "strict": True}}
    check_features(
        request(tools=[FUNCTION, strict], tool_choice=choice, parallel_tool_calls=parallel), EVERYTHING
    )


@pytest.mark.parametrize("choice", ["any", "required", NAMED])
def test_a_call_needs_a_tool(choice: Any) -> None:
    error = refusal(EVERYTHING, tool_choice=choice)
    assert error.message == "tool_choice asks for a call, and there are no tools"
    assert error.param == "tool_choice"


def test_a_choice_of_a_function_that_is_not_there_is_refused() -> None:
    choice = {"type": "function", "function": {"name": "g"}}
    error = refusal(EVERYTHING, tools=[FUNCTION], tool_choice=choice)
    assert error.message == "tool_choice names g, which is none of the tools"
    assert error.param == "tool_choice"


def test_a_schema_for_an_answer_that_is_no_json_is_refused() -> None:
    error = refusal(response_format={**SCHEMA_FORMAT, "type": "text"})
    assert error.message == "response_format.json_schema needs response_format.type json_schema"


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objekt"}, "'objekt' is not valid under any of the given schemas"),
        ({"required": "a"}, "'a' is not of type 'array'"),
        ({"properties": {"a": 1}}, "1 is not of type 'object', 'boolean'"),
    ],
)
@pytest.mark.parametrize("choice", ["auto", "none"])
def test_parameters_that_are_no_json_schema_are_refused(
    schema: dict[str, Any], reason: str, choice: str
) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    error = refusal(EVERYTHING, tools=[tool], tool_choice=choice)
    assert (error.message, error.param) == (f"Invalid tool schema: {reason}", "tools")
    assert error.body()["code"] == "3051"


def test_what_a_wrong_schema_holds_is_not_repeated_at_length() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "x" * 10_000}}}
    assert len(refusal(EVERYTHING, tools=[tool]).message) < 300


def test_a_reasoning_model_leaves_the_effort_to_its_prompt_format() -> None:
    check_features(request(reasoning_effort="low"), EVERYTHING)
    check_reasoning_effort("high", ["none", "high"])
    check_reasoning_effort(None, [])
    with pytest.raises(InvalidArguments) as caught:
        check_reasoning_effort("low", ["none", "high"])
    assert caught.value.message == (
        "reasoning_effort low is not supported for this model, supported values: ['none', 'high']"
    )
    assert caught.value.param == "reasoning_effort"
    with pytest.raises(FeatureNotEnabled, match=r"^reasoning_effort is not enabled for this model$"):
        check_reasoning_effort("none", [])


def test_model_without_chat_is_refused() -> None:
    assert refusal(frozenset({"ocr"})).message == f"Chat completion {DISABLED}"


def test_documentation_is_current() -> None:
    script = Path(__file__).parents[2] / "scripts" / "request_fields.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_parameters_of_too_many_parts_are_refused_before_they_are_checked() -> None:
    properties = {f"p{i}": {"type": "string"} for i in range(MAX_SCHEMA_NODES)}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": properties}}}
    with pytest.raises(InvalidTools, match="more than 10000 parts") as refused:
        check_features(ChatCompletionRequest.model_validate(BASE | {"tools": [tool]}), EVERYTHING)
    assert refused.value.param == "tools"
