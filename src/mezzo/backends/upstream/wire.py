"""What an upstream sends, as far as it is used: chunks of OpenAI's form and of Mistral's, read alike.

Fields that are not named here are skipped without being decoded. What a field may hold is taken widely, since servers
differ: null for what is absent, a list of parts or a plain string.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

# More tokens than any request has; a server that says more is not to be believed.
_Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


class Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class CallDelta(msgspec.Struct):
    """A tool call or a fragment of one; Mistral's fragments have an empty name and the id `null`."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Part(msgspec.Struct):
    """A part of a content that is a list: of type `text` or `thinking`."""

    type: str = "text"
    text: str | None = None
    thinking: str | list[Part] | None = None
    closed: bool | None = None


class Delta(msgspec.Struct):
    """`reasoning` and `reasoning_content` are two names of one thing, by the age of the server."""

    content: str | list[Part] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[CallDelta] | None = None

    @property
    def has_content(self) -> bool:
        """Whether it adds anything: the first delta of a stream and the last often do not."""
        return bool(
            self.content or self.reasoning or self.reasoning_content or self.refusal or self.tool_calls
        )


class Choice(msgspec.Struct):
    index: int = 0
    delta: Delta | None = None
    finish_reason: str | None = None

    @property
    def has_content(self) -> bool:
        """Whether its delta adds anything."""
        return self.delta is not None and self.delta.has_content


class PromptDetails(msgspec.Struct):
    cached_tokens: _Count | None = None


class CompletionDetails(msgspec.Struct):
    accepted_prediction_tokens: _Count | None = None
    rejected_prediction_tokens: _Count | None = None


class Usage(msgspec.Struct):
    prompt_tokens: _Count = 0
    completion_tokens: _Count | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Chunk(msgspec.Struct):
    """One event. `error`, or `object: error` with a message, tells a failure inside the stream."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    object: str | None = None
    error: Any = None
    message: Any = None
    code: Any = None

    @property
    def failure(self) -> Any:
        """What is wrong; None in a proper chunk."""
        if self.object == "error":
            return {"message": self.message, "code": self.code}
        return self.error


class Card(msgspec.Struct):
    """A model in the answer of `GET /models`: Mistral's have capabilities, vLLM's a `max_model_len`."""

    id: str
    owned_by: str | None = None
    aliases: list[str] | None = None
    max_context_length: Annotated[int, msgspec.Meta(gt=0)] | None = None
    max_model_len: Annotated[int, msgspec.Meta(gt=0)] | None = None
    capabilities: dict[str, Any] | None = None


class CardList(msgspec.Struct):
    data: list[Card]


decode_chunk = msgspec.json.Decoder(Chunk).decode
decode_cards = msgspec.json.Decoder(CardList).decode
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoders raise for bytes that are no such JSON."""
