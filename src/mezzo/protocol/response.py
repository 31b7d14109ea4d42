"""What the chat endpoint answers: one object, or chunks of a stream.

These are made by us and never parsed, so they are plain structs: the order of the fields is the order on the
wire, a field left UNSET is absent, None is `null`. Encoding one chunk takes about a microsecond.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

FinishReason = Literal["stop", "length", "model_length", "tool_calls", "error"]

_encode = msgspec.json.Encoder().encode


class PromptTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    cached_tokens: int = 0


class CompletionTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Of a request with a prediction: its tokens that were tried, and were the answer's or not."""

    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one request: the prompt counted once, completions summed over the choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails | UnsetType = UNSET
    service_tier: Literal["standard", "priority"] = "standard"

    @classmethod
    def of(
        cls,
        *,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int = 0,
        completion_tokens_details: CompletionTokensDetails | UnsetType = UNSET,
        service_tier: Literal["standard", "priority"] = "standard",
    ) -> Usage:
        """Return the usage of a request; `cached_tokens` are a part of `prompt_tokens`."""
        return cls(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=cached_tokens),
            completion_tokens_details=completion_tokens_details,
            service_tier=service_tier,
        )


class TextContent(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class ThinkingContent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="thinking"):
    """A reasoning trace, or a part of one; `closed` is on the wire where the trace ends."""

    thinking: list[TextContent]
    closed: bool | UnsetType = UNSET


class FunctionOfCall(msgspec.Struct, frozen=True, kw_only=True):
    """The called function. `arguments` is JSON as text; in a fragment of a stream, more of it, and `name` is empty."""

    name: str
    arguments: str


class ToolCallOfAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the model made. `index` counts the calls of a message; `id` and `type` are left out of fragments."""

    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionOfCall
    index: int


AnswerContent = str | list[TextContent | ThinkingContent]
"""A plain string, unless there is a reasoning trace beside the text."""


class ResponseMessage(msgspec.Struct, frozen=True, kw_only=True):
    role: Literal["assistant"] = "assistant"
    tool_calls: list[ToolCallOfAnswer] | None = None
    content: AnswerContent


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    finish_reason: FinishReason
    message: ResponseMessage


class ChatCompletionResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. `model` is the name that was asked for, alias or not; `created` is in unix seconds."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage

    def to_json(self) -> bytes:
        """Return the body, UTF-8."""
        return _encode(self)


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk adds. `role` is in the first chunk of a choice only."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: AnswerContent | UnsetType = UNSET
    tool_calls: list[ToolCallOfAnswer] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One choice's part of a chunk; `finish_reason` is always on the wire, null until the last chunk."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream.

    `usage` is set on the very last chunk only; `p` is padding of random length against observers who tell
    tokens by the size of packets.
    """

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType = UNSET
    p: str | UnsetType = UNSET

    def to_json(self) -> bytes:
        """Return the event's data on one line, UTF-8."""
        return _encode(self)
