"""Answers, byte for byte as the contract shows them, read back by the official clients' own types."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from mistralai.client import models as sdk
from openai.types.chat import ChatCompletion
from openai.types.chat import ChatCompletionChunk as OpenAIChunk

from mezzo.protocol.models import Capabilities, ModelCard, ModelList
from mezzo.protocol.response import (
    ChatCompletionChunk,
    ChatCompletionResponse,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
    ResponseMessage,
    Usage,
)

USAGE = Usage.of(prompt_tokens=12, completion_tokens=3)

RESPONSE = ChatCompletionResponse(
    id="0c1f6a2be4d94f1fa7b38c5d2e90a611",
    created=1790000000,
    model="mistral-medium-latest",
    choices=[Choice(index=0, finish_reason="stop", message=ResponseMessage(content="Paris."))],
    usage=USAGE,
)

RESPONSE_BYTES = (
    b'{"id":"0c1f6a2be4d94f1fa7b38c5d2e90a611","object":"chat.completion","created":1790000000,'
    b'"model":"mistral-medium-latest","choices":[{"index":0,"finish_reason":"stop","message":'
    b'{"role":"assistant","tool_calls":null,"content":"Paris."}}],"usage":{"prompt_tokens":12,'
    b'"completion_tokens":3,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":0},'
    b'"service_tier":"standard"}}'
)


def chunk(delta: Delta, finish_reason: FinishReason | None = None, **rest: Any) -> ChatCompletionChunk:
    return ChatCompletionChunk(
        id="5af4",
        created=1790000000,
        model="mistral-medium-latest",
        choices=[ChunkChoice(index=0, delta=delta, finish_reason=finish_reason)],
        **rest,
    )


HEAD = b'{"id":"5af4","object":"chat.completion.chunk","created":1790000000,"model":"mistral-medium-latest",'
USAGE_BYTES = (
    b'"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15,'
    b'"prompt_tokens_details":{"cached_tokens":0},"service_tier":"standard"}'
)
CHUNKS = [
    (
        chunk(Delta(role="assistant", content="")),
        HEAD + b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}',
    ),
    (
        chunk(Delta(content="Par"), p="abcdefg"),
        HEAD + b'"choices":[{"index":0,"delta":{"content":"Par"},"finish_reason":null}],"p":"abcdefg"}',
    ),
    (
        chunk(Delta(content="is."), "stop", usage=USAGE, p="abcdefghijklmnop"),
        HEAD
        + b'"choices":[{"index":0,"delta":{"content":"is."},"finish_reason":"stop"}],'
        + USAGE_BYTES
        + b',"p":"abcdefghijklmnop"}',
    ),
]


def test_response_is_the_contracts_example() -> None:
    assert RESPONSE.to_json() == RESPONSE_BYTES


@pytest.mark.parametrize(("event", "expected"), CHUNKS, ids=["role", "text", "finish"])
def test_chunk_is_the_contracts_example(event: ChatCompletionChunk, expected: bytes) -> None:
    assert event.to_json() == expected


def test_text_stays_utf8_on_one_line() -> None:
    body = chunk(Delta(content='é漢🙂\n"\\\u2028\x00')).to_json()
    assert "é漢🙂".encode() in body
    assert b"\n" not in body
    assert json.loads(body)["choices"][0]["delta"]["content"] == 'é漢🙂\n"\\\u2028\x00'


def test_usage_counts_cached_tokens_inside_the_prompt() -> None:
    usage = Usage.of(prompt_tokens=128, completion_tokens=2, cached_tokens=64)
    assert (usage.total_tokens, usage.prompt_tokens_details.cached_tokens) == (130, 64)


def test_mistralai_reads_the_response() -> None:
    parsed = sdk.ChatCompletionResponse.model_validate_json(RESPONSE.to_json())
    message = parsed.choices[0].message
    assert message is not None
    assert (message.content, message.tool_calls, message.role) == ("Paris.", None, "assistant")
    assert (parsed.usage.total_tokens, parsed.usage.service_tier) == (15, "standard")
    assert parsed.usage.additional_properties == {"prompt_tokens_details": {"cached_tokens": 0}}


def test_mistralai_reads_the_chunks() -> None:
    events = [sdk.CompletionChunk.model_validate_json(event.to_json()) for event, _ in CHUNKS]
    assert "".join(str(event.choices[0].delta.content) for event in events) == "Paris."
    assert [event.choices[0].finish_reason for event in events] == [None, None, "stop"]
    assert [event.usage is None for event in events] == [True, True, False]


def test_openai_reads_the_response_and_the_chunks() -> None:
    response = ChatCompletion.model_validate_json(RESPONSE.to_json())
    assert response.choices[0].message.content == "Paris."
    assert response.usage is not None
    assert response.usage.total_tokens == 15
    chunks = [OpenAIChunk.model_validate_json(event.to_json()) for event, _ in CHUNKS]
    assert "".join(event.choices[0].delta.content or "" for event in chunks) == "Paris."
    assert chunks[-1].choices[0].finish_reason == "stop"


CARD = ModelCard(
    id="mistral-medium-2508",
    created=1790000000,
    name="mistral-medium-2508",
    description="Update of Mistral Medium 3.",
    max_context_length=131072,
    aliases=[],
    deprecation=datetime(2026, 8, 31, 12, tzinfo=UTC),
    deprecation_replacement_model="mistral-medium-3-5",
    default_model_temperature=0.3,
    capabilities=Capabilities(completion_chat=True, function_calling=True, fine_tuning=True, vision=True),
)


def test_card_is_the_contracts_example() -> None:
    assert CARD.to_json() == (
        b'{"id":"mistral-medium-2508","object":"model","created":1790000000,"owned_by":"mistralai",'
        b'"name":"mistral-medium-2508","description":"Update of Mistral Medium 3.",'
        b'"max_context_length":131072,"aliases":[],"deprecation":"2026-08-31T12:00:00Z",'
        b'"deprecation_replacement_model":"mistral-medium-3-5","default_model_temperature":0.3,'
        b'"type":"base","capabilities":{"completion_chat":true,"function_calling":true,"reasoning":false,'
        b'"completion_fim":false,"fine_tuning":true,"vision":true,"ocr":false,"classification":false,'
        b'"moderation":false,"audio":false,"audio_transcription":false,'
        b'"audio_transcription_realtime":false,"audio_speech":false,"unified_resources":false}}'
    )


def test_mistralai_reads_the_list_and_knows_every_capability() -> None:
    parsed = sdk.ModelList.model_validate_json(ModelList(data=[CARD]).to_json())
    assert parsed.data is not None
    (card,) = parsed.data
    assert isinstance(card, sdk.BaseModelCard)
    assert card.deprecation == CARD.deprecation
    assert card.capabilities.vision is True
    assert set(Capabilities.__struct_fields__) == set(sdk.ModelCapabilities.model_fields)
