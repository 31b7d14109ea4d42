"""The body of `POST /v1/chat/completions`: every field of the contract and of the official SDK.

Whether a field that fits this schema is honoured is the table of `prompt.features`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

from mezzo.protocol.base import AS_INTEGER, AS_NUMBER, Bool, Int, JsonObject, NonNegativeInt, WireModel
from mezzo.protocol.content import TextChunk
from mezzo.protocol.guardrails import Guardrail
from mezzo.protocol.messages import AssistantMessage, Message
from mezzo.protocol.tools import AnyTool, FunctionDef, Tool, ToolChoice

# Bounds that the reference does not document; a request past them is refused, never cut.
MAX_CHOICES = 16
MAX_STOP_STRINGS = 64
MAX_STOP_LENGTH = 1024

StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Penalty = Annotated[float, Field(ge=-2, le=2), AS_NUMBER]


class JsonSchemaFormat(WireModel):
    name: str
    schema_definition: JsonObject = Field(alias="schema")
    description: str | None = None
    strict: Bool = False


class ResponseFormat(WireModel):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchemaFormat | None = Field(default=None, validate_default=True)

    @field_validator("json_schema")
    @classmethod
    def _require_schema(cls, value: JsonSchemaFormat | None, info: ValidationInfo) -> JsonSchemaFormat | None:
        if value is None and info.data.get("type") == "json_schema":
            raise PydanticKnownError("missing")
        return value


class Prediction(WireModel):
    """The expected text; an empty one means off."""

    type: Literal["content"] = "content"
    content: str = ""


class StreamOptions(WireModel):
    include_usage: Bool | None = None
    stream_tool_calls: Bool | None = None


def stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    """Return what `stop` lists, in its order."""
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


class ChatCompletionRequest(WireModel):
    """One request as the wire has it.

    None means that the client left a choice to the server: model card, context, or chance.
    """

    model: str
    messages: list[Message]
    temperature: Annotated[float, Field(ge=0, le=1.5), AS_NUMBER] | None = None
    top_p: Annotated[float, Field(gt=0, le=1), AS_NUMBER] | None = None
    max_tokens: NonNegativeInt | None = None
    stream: Bool = False
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS)] | None = None
    random_seed: NonNegativeInt | None = None
    metadata: JsonObject | None = None
    response_format: ResponseFormat = ResponseFormat()
    tools: list[AnyTool] | None = None
    tool_choice: ToolChoice = "auto"
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    min_tokens: NonNegativeInt | None = None
    repetition_penalty: Annotated[float, Field(gt=0), AS_NUMBER] | None = None
    top_k: Int | None = None
    logprobs: Bool | None = None
    top_logprobs: NonNegativeInt | None = None
    prompt_logprobs: Bool | None = None
    top_prompt_logprobs: NonNegativeInt | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), AS_INTEGER] | None = None
    prediction: Prediction = Prediction()
    parallel_tool_calls: Bool = True
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    prompt_mode: Literal["reasoning"] | None = None
    guardrails: list[Guardrail] | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    safe_prompt: Bool = False
    stream_options: StreamOptions | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings that end the answer, in the order given."""
        return stop_strings(self.stop)

    @property
    def continued(self) -> AssistantMessage | None:
        """The last message, where the answer goes on from it: an assistant's with `prefix`."""
        last = self.messages[-1] if self.messages else None
        return last if isinstance(last, AssistantMessage) and last.prefix else None

    @property
    def continued_text(self) -> str:
        """What the answer begins with already: all text of `continued`, without its other chunks."""
        content = self.continued.content if self.continued is not None else None
        if content is None or isinstance(content, str):
            return content or ""
        return "".join(chunk.text for chunk in content if isinstance(chunk, TextChunk))

    @property
    def functions(self) -> list[FunctionDef]:
        """The functions that the model is shown: none of them with `tool_choice: none`."""
        if self.tool_choice == "none":
            return []
        return [tool.function for tool in self.tools or () if isinstance(tool, Tool)]

    @property
    def num_choices(self) -> int:
        """How many answers were asked for."""
        return 1 if self.n is None else self.n
