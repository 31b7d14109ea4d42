"""The request schema against the contract's examples and against what the official SDK sends."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from mistralai.client import models as sdk
from mistralai.client.types import UNSET
from pydantic import ValidationError

from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.content import ImageURL, TextChunk, text_of
from mezzo.protocol.messages import AssistantMessage
from mezzo.protocol.parse import parse_body
from mezzo.protocol.tools import FunctionDef, Tool, WebSearchTool

MODEL = "mistral-medium-latest"


def parse(body: dict[str, Any]) -> ChatCompletionRequest:
    return parse_body(ChatCompletionRequest, json.dumps(body).encode())


def test_schema_has_every_field_of_the_official_sdk() -> None:
    ours = set(ChatCompletionRequest.model_fields)
    assert ours >= set(sdk.ChatCompletionRequest.model_fields)
    assert ours >= set(sdk.ChatCompletionStreamRequest.model_fields)
    # Not in the SDK, sent by the official command line client.
    assert ours - set(sdk.ChatCompletionRequest.model_fields) == {"stream_options"}


@pytest.mark.parametrize("field", sorted(sdk.ChatCompletionRequest.model_fields))
def test_null_is_accepted_exactly_where_the_sdk_may_send_it(field: str) -> None:
    is_nullable_here = type(None) in get_args(ChatCompletionRequest.model_fields[field].annotation)
    # The SDK marks what it can send as null by a default of UNSET.
    assert is_nullable_here == (sdk.ChatCompletionRequest.model_fields[field].default is UNSET)


def test_images_in_both_forms() -> None:
    request = parse(
        {
            "model": "mistral-medium-2508",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Compare."},
                        {"type": "image_url", "image_url": "data:image/png;base64,iVBORw0KGgo="},
                        {
                            "type": "image_url",
                            "image_url": {"url": "https://example.org/b.jpg", "detail": "high"},
                        },
                    ],
                }
            ],
        }
    )
    _, short, long = request.messages[0].content or ()
    assert not isinstance(short, str)
    assert short.model_dump()["image_url"] == "data:image/png;base64,iVBORw0KGgo="
    assert not isinstance(long, str)
    assert (
        long.model_dump()["image_url"]
        == ImageURL(url="https://example.org/b.jpg", detail="high").model_dump()
    )


def test_tool_round_trip() -> None:
    parameters = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
    function = {"name": "get_stock", "description": "", "parameters": parameters}
    call = {
        "id": "k3ZpQ9aB1",
        "type": "function",
        "function": {"name": "get_stock", "arguments": '{"sku": "A1"}'},
        "index": 0,
    }
    request = parse(
        {
            "model": "mistral-medium-3-5",
            "tools": [{"type": "function", "function": function}],
            "messages": [
                {"role": "user", "content": "Stock of A1?"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "k3ZpQ9aB1", "name": "get_stock", "content": '{"qty": 4}'},
            ],
        }
    )
    assert request.tools == [Tool(function=FunctionDef(**function))]
    assistant = request.messages[1]
    assert isinstance(assistant, AssistantMessage)
    assert assistant.tool_calls is not None
    assert assistant.tool_calls[0].model_dump() == call


def test_tools_without_a_type_are_functions_and_hosted_tools_keep_theirs() -> None:
    request = parse(
        {
            "model": MODEL,
            "messages": [],
            "tools": [{"function": {"name": "f", "parameters": {}}}, {"type": "web_search"}],
        }
    )
    assert request.tools == [
        Tool(function=FunctionDef(name="f", parameters={})),
        WebSearchTool(type="web_search"),
    ]


@pytest.mark.parametrize(
    ("stop", "expected"), [(None, ()), ("a", ("a",)), ([], ()), (["a", "b"], ("a", "b"))]
)
def test_stop_strings(stop: object, expected: tuple[str, ...]) -> None:
    assert parse({"model": MODEL, "messages": [], "stop": stop}).stop_strings == expected


def test_number_of_choices_is_one_unless_asked() -> None:
    assert parse({"model": MODEL, "messages": []}).num_choices == 1
    assert parse({"model": MODEL, "messages": [], "n": None}).num_choices == 1
    assert parse({"model": MODEL, "messages": [], "n": 3}).num_choices == 3


def test_a_request_never_changes() -> None:
    request = parse({"model": MODEL, "messages": []})
    with pytest.raises(ValidationError, match="frozen"):
        request.temperature = 1.0  # type: ignore[misc]


def sdk_request(**fields: Any) -> sdk.ChatCompletionRequest:
    return sdk.ChatCompletionRequest(model=MODEL, messages=[sdk.UserMessage(content="Hi")], **fields)


CALL = sdk.ToolCall(id="k3ZpQ9aB1", function=sdk.FunctionCall(name="f", arguments={"a": 1}))

SDK_REQUESTS = {
    "smallest": sdk_request(),
    "sampling": sdk_request(
        temperature=0.3,
        top_p=0.9,
        max_tokens=0,
        stop=["a", "b"],
        random_seed=7,
        presence_penalty=-2,
        frequency_penalty=2,
        n=2,
        stream=True,
    ),
    "nulls": sdk_request(
        temperature=None, top_p=None, max_tokens=None, stop=None, tools=None, n=None, metadata=None
    ),
    "sdk only": sdk_request(
        min_tokens=1,
        repetition_penalty=1.1,
        top_k=5,
        logprobs=True,
        top_logprobs=2,
        prompt_logprobs=True,
        top_prompt_logprobs=1,
    ),
    "modes": sdk_request(
        reasoning_effort="max",
        prompt_mode="reasoning",
        prompt_cache_key="k",
        service_tier="auto",
        safe_prompt=True,
        parallel_tool_calls=False,
        metadata={"a": [1, {"b": None}]},
        prediction=sdk.Prediction(content="x"),
    ),
    "json schema": sdk_request(
        response_format=sdk.ResponseFormat(
            type="json_schema",
            json_schema=sdk.JSONSchema(name="city", schema_definition={"type": "object"}, strict=True),
        )
    ),
    "tools": sdk_request(
        tools=[
            sdk.Tool(function=sdk.Function(name="f", parameters={"type": "object"})),
            sdk.ImageGenerationTool(),
            sdk.DocumentLibraryTool(library_ids=["a"]),
            sdk.CustomConnector(connector_id="c", authorization=sdk.APIKeyAuth(value="x")),
        ],
        tool_choice=sdk.ToolChoice(function=sdk.FunctionName(name="f")),
    ),
    "guardrails": sdk_request(
        guardrails=[
            sdk.GuardrailConfig(
                block_on_error=True,
                moderation_llm_v1=sdk.ModerationLlmv1Config(action="block"),
                moderation_llm_v2=sdk.ModerationLlmv2Config(
                    custom_category_thresholds=sdk.ModerationLlmv2CategoryThresholds(pii=0.5, sexual=None)
                ),
            )
        ]
    ),
    "conversation": sdk.ChatCompletionRequest(
        model=MODEL,
        messages=[
            sdk.SystemMessage(content=[sdk.TextChunk(text="Be brief.")]),
            sdk.UserMessage(content=None),
            sdk.UserMessage(
                content=[
                    sdk.TextChunk(text="x"),
                    sdk.ImageURLChunk(image_url=sdk.ImageURL(url="https://example.org/a.png", detail=None)),
                    sdk.DocumentURLChunk(document_url="https://example.org/a.pdf", document_name="a"),
                    sdk.FileChunk(file_id="f"),
                    sdk.ReferenceChunk(reference_ids=[1, "b"]),
                    sdk.AudioChunk(input_audio="AAAA"),
                    sdk.ResourceChunk(uri="r://a", content=sdk.TextChunk(text="y")),
                    sdk.ResourceLinkChunk(uri="r://b", metadata={"a": 1, "b": True, "c": 0.5, "d": "e"}),
                ]
            ),
            sdk.AssistantMessage(
                content=[
                    sdk.ThinkChunk(
                        thinking=[
                            sdk.TextChunk(text="hm"),
                            sdk.ToolReferenceChunk(tool="web_search", title="t"),
                            sdk.ReferenceChunk(reference_ids=[0]),
                        ],
                        closed=True,
                        signature="s",
                    )
                ],
                tool_calls=[CALL],
            ),
            sdk.ToolMessage(content="4", tool_call_id="k3ZpQ9aB1", name="f"),
            sdk.AssistantMessage(content="So", prefix=True),
        ],
    ),
}


@pytest.mark.parametrize("name", SDK_REQUESTS)
def test_what_the_sdk_sends_fits_and_means_the_same(name: str) -> None:
    sent = SDK_REQUESTS[name].model_dump(mode="json", by_alias=True)
    request = parse_body(ChatCompletionRequest, json.dumps(sent).encode())
    understood = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert understood == sent


class TestTextOf:
    def test_text_none_and_chunks(self) -> None:
        assert text_of("x") == "x"
        assert text_of(None) == ""
        assert text_of([]) == ""
        assert text_of([TextChunk(type="text", text="a"), TextChunk(type="text", text="b")]) == "ab"

    def test_a_chunk_that_is_not_text_is_an_error(self) -> None:
        with pytest.raises(TypeError, match=r"content\[1\] is a ImageURL"):
            text_of([TextChunk(type="text", text="a"), ImageURL(url="x")])
