"""Checkpoints with Mistral's own tokenizer and prompt format, through the official SDK: calls, traces, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistralai.client import Mistral
from mistralai.client import models as wire
from mistralai.client.errors import SDKError

from tests.scripted import write_scripted_checkpoint
from tests.sdk.serving import KEY, Serving, serving

MODEL_35 = "mistral-medium-3-5"
QUESTION = {"role": "user", "content": "Stock of A1?"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_stock",
            "description": "Look up the stock.",
            "parameters": {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]},
        },
    }
]
THOUGHT, ARGUMENTS, TEXT = "I look it up", '{"sku": "A1"}', "There are four."
V13 = {
    "[/INST]": ["[THINK]", THOUGHT, "[/THINK]", "[TOOL_CALLS]", "get_stock", "[ARGS]", ARGUMENTS],
    "[/TOOL_RESULTS]": [TEXT],
}
V11 = {
    "[/INST]": ["[TOOL_CALLS]", "get_stock", "[CALL_ID]", "hZpQwBxyd", "[ARGS]", ARGUMENTS],
    "[/TOOL_RESULTS]": [TEXT],
}


class Scripted:
    """A server with a scripted checkpoint under two names, its client, and the reference's tokenizer."""

    def __init__(self, running: Serving, folder: Path) -> None:
        self.url = running.url
        self.client = Mistral(api_key=KEY, server_url=running.url)
        self.tokenizer = MistralTokenizer.from_file(str(folder / "tekken.json"))

    def num_prompt_tokens(self, messages: list[dict[str, Any]], **fields: Any) -> int:
        request = ChatCompletionRequest.model_validate({"messages": messages, **fields})
        return len(self.tokenizer.encode_chat_completion(request).tokens)

    def complete(self, messages: list[dict[str, Any]], **fields: Any) -> wire.ChatCompletionResponse:
        return self.client.chat.complete(
            **{"model": MODEL_35, "messages": messages, "temperature": 0, "tools": TOOLS} | fields
        )


@pytest.fixture(scope="module", params=["v13", "v11"])
def scripted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Scripted]]:
    version = request.param
    folder = write_scripted_checkpoint(
        tmp_path_factory.mktemp(version), version, {"v13": V13, "v11": V11}[version]
    )
    home = tmp_path_factory.mktemp("home")
    with serving(home, tmp_path_factory.mktemp("run"), models=json.dumps({MODEL_35: str(folder)})) as running:
        yield version, Scripted(running, folder)


def thinking(text: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def dumped(content: Any) -> Any:
    return (
        [chunk.model_dump(exclude_unset=True) for chunk in content] if isinstance(content, list) else content
    )


def test_a_call_comes_back_and_its_result_is_read(scripted: tuple[str, Scripted]) -> None:
    version, server = scripted
    answer = server.complete([QUESTION])
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_stock", {"sku": "A1"})
    assert len(call.id) == 9
    assert call.id.isalnum()
    if version == "v11":
        assert call.id == "hZpQwBxyd", "an id of the model's own that fits is kept"
        assert choice.message.content == ""
    else:
        assert dumped(choice.message.content) == [thinking(THOUGHT) | {"closed": True}]
    assert answer.usage.prompt_tokens == server.num_prompt_tokens([QUESTION], tools=TOOLS)

    replayed = choice.message.model_dump(exclude_unset=True, mode="json")
    result = {"role": "tool", "tool_call_id": call.id, "name": "get_stock", "content": '{"qty": 4}'}
    second = server.complete([QUESTION, replayed, result])
    assert second.choices[0].message.content == TEXT
    assert second.choices[0].finish_reason == "stop"
    assert not second.choices[0].message.tool_calls


def test_a_stream_shows_the_call_whole_with_the_finish_reason(scripted: tuple[str, Scripted]) -> None:
    version, server = scripted
    with server.client.chat.stream(model=MODEL_35, messages=[QUESTION], temperature=0, tools=TOOLS) as events:
        chunks = [event.data for event in events]
    last = chunks[-1].choices[0]
    assert last.finish_reason == "tool_calls"
    assert [call.function.name for call in last.delta.tool_calls] == ["get_stock"]
    assert json.loads(last.delta.tool_calls[0].function.arguments) == {"sku": "A1"}
    assert chunks[-1].usage.completion_tokens > 0
    contents = [dumped(chunk.choices[0].delta.content) for chunk in chunks[1:-1]]
    said = "".join(part["thinking"][0]["text"] for content in contents if content for part in content)
    assert said == (THOUGHT if version == "v13" else "")


def test_a_stream_shows_the_call_as_it_is_written_if_asked(scripted: tuple[str, Scripted]) -> None:
    _, server = scripted
    body = {
        "model": MODEL_35,
        "messages": [QUESTION],
        "temperature": 0,
        "tools": TOOLS,
        "stream": True,
        "stream_options": {"stream_tool_calls": True},
    }
    headers = {"authorization": f"Bearer {KEY}"}
    response = httpx.post(server.url + "/v1/chat/completions", json=body, headers=headers, trust_env=False)
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    choices = [json.loads(line)["choices"][0] for line in lines]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    assert calls[0]["function"] == {"name": "get_stock", "arguments": ""}
    assert all("id" not in call and call["function"]["name"] == "" for call in calls[1:])
    assert len(calls) > 2, "the arguments came in one piece"
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"sku": "A1"}
    assert (choices[-1]["finish_reason"], choices[-1]["delta"]) == ("tool_calls", {"content": ""})


def test_a_call_that_is_cut_off_is_none(scripted: tuple[str, Scripted]) -> None:
    version, server = scripted
    num_tokens = server.complete([QUESTION]).usage.completion_tokens
    (choice,) = server.complete([QUESTION], max_tokens=num_tokens - 3).choices
    assert choice.finish_reason == "length"
    assert not choice.message.tool_calls
    assert version == "v13" or choice.message.content == ""


@pytest.mark.parametrize("stop", ["stock", "sku", "A1", "}"])
def test_a_stop_string_amid_a_call_leaves_none(scripted: tuple[str, Scripted], stop: str) -> None:
    """The model has not come to the end of its call: what there is of it is no call to make."""
    _, server = scripted
    (choice,) = server.complete([QUESTION], stop=stop).choices
    assert (choice.finish_reason, choice.message.tool_calls or None) == ("stop", None)
    assert "TOOL_CALLS" not in str(choice.message.content)


def test_tools_that_may_not_be_called_are_not_in_the_prompt(scripted: tuple[str, Scripted]) -> None:
    _, server = scripted
    answer = server.complete([QUESTION], tool_choice="none")
    assert answer.usage.prompt_tokens == server.num_prompt_tokens([QUESTION])


def test_the_prompt_is_the_references_token_for_token(scripted: tuple[str, Scripted]) -> None:
    """By its length here; ids are compared in tests/prompt."""
    _, server = scripted
    messages = [
        {"role": "system", "content": "Be brief."},
        QUESTION,
        {"role": "assistant", "content": "Which warehouse?"},
        {"role": "user", "content": "[INST] Any. </s>"},
    ]
    answer = server.complete(messages, tools=None)
    assert answer.usage.prompt_tokens == server.num_prompt_tokens(messages)


def test_effort_that_the_model_does_not_know_is_refused_by_name(scripted: tuple[str, Scripted]) -> None:
    _, server = scripted
    with pytest.raises(SDKError) as refusal:
        server.complete([QUESTION], reasoning_effort="high")
    body = json.loads(refusal.value.body)
    assert (body["code"], body["param"]) == ("3051", "reasoning_effort")
    assert "reasoning_effort is not enabled for this model" in body["message"]
