"""From our wire request to the request that mistral_common encodes.

Every field is accounted for:

    messages, tools, tool_choice, response_format, reasoning_effort   are translated: they are part of the prompt
    prompt_mode             puts the checkpoint's own system message for reasoning in front
    safe_prompt             puts its system message in front; so does response_format where a format does not show it
    parallel_tool_calls     is passed on; no format shows it
    everything else         chooses how to sample, answer or bill, and is no part of any prompt. mistral_common would
                            even refuse some of it: it knows temperatures up to 1 only

Of a message: `tool_calls[].index` and `tool_calls[].type` have no place in any format, a trace's `signature` neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mistral_common.protocol.instruct import messages as mistral
from mistral_common.protocol.instruct.chunk import ContentChunk, ImageURLChunk, TextChunk, ThinkChunk
from mistral_common.protocol.instruct.request import (
    ChatCompletionRequest as MistralRequest,
)
from mistral_common.protocol.instruct.request import (
    JsonSchema,
    ReasoningEffort,
    ResponseFormat,
    ResponseFormats,
)
from mistral_common.protocol.instruct.tool_calls import (
    Function,
    FunctionCall,
    FunctionName,
    NamedToolChoice,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceEnum,
)
from pydantic import SkipValidation

from mezzo.prompt import instructions
from mezzo.prompt.content import ContentPart, ThinkingPart, content_parts, where_is
from mezzo.prompt.media.images import PreparedImage
from mezzo.prompt.parts import Attachments, ImagePart, TextPart
from mezzo.protocol import tools as wire_tools
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import FeatureNotEnabled, InvalidArguments
from mezzo.protocol.messages import AssistantMessage, Message, SystemMessage, UserMessage

_NAMES = {TextPart: "text", ImagePart: "image", ThinkingPart: "thinking"}


class PreparedChunk(ImageURLChunk):
    """An image that is decoded and resized already. mistral_common takes it for one of its own."""

    image_url: str = ""
    prepared: SkipValidation[Any]


@dataclass(frozen=True, slots=True)
class Format:
    """What a prompt format can show.

    in_role    role -> kinds of part that its messages may hold
    prepare    decodes and resizes an image
    reasoning_prompt  what a checkpoint brings for `prompt_mode`, as the content of a system message
    shows_response_format  whether the format itself has a place for it; else a system message in front says it
    """

    in_role: Mapping[str, frozenset[type[ContentPart]]]
    prepare: Callable[[ImagePart], PreparedImage]
    reasoning_prompt: tuple[TextPart | ThinkingPart, ...] = ()
    shows_response_format: bool = False

    def check(self, part: ContentPart, role: str, where: str) -> None:
        """Raises: FeatureNotEnabled or InvalidArguments for a part that has no place in messages of this role."""
        kind = type(part)
        if kind in self.in_role[role]:
            return
        what = f"{where}: {_NAMES[kind]} content"
        if not any(kind in kinds for kinds in self.in_role.values()):
            raise FeatureNotEnabled(what, param="messages")
        raise InvalidArguments(f"{what} is not supported in {role} messages of this model", param="messages")


class Translation:
    """Translates one request; `images` are its images, in the order of the messages."""

    def __init__(self, request: ChatCompletionRequest, form: Format, attachments: Attachments) -> None:
        """Read all content, decode all images. Raises: DomainError for what the format cannot show."""
        self._request = request
        self._form = form
        self._contents = [
            _content(message, position, form, attachments)
            for position, message in enumerate(request.messages)
        ]
        self.images = [
            part for content in self._contents for part in content if isinstance(part, PreparedImage)
        ]

    def request(self) -> MistralRequest[mistral.ChatMessage]:
        """Return the request as mistral_common has it. Raises: what pydantic raises."""
        request = self._request
        messages: list[mistral.ChatMessage] = []
        if request.prompt_mode is not None:
            messages.append(
                mistral.SystemMessage(content=[_chunk(part) for part in self._reasoning_prompt()])
            )
        before = instructions.safety(request)
        if not self._form.shows_response_format:
            before += instructions.response_format(request)
        messages += [mistral.SystemMessage(content=text) for text in before]
        messages += [
            _message(message, content)
            for message, content in zip(request.messages, self._contents, strict=True)
        ]
        effort = request.reasoning_effort
        return MistralRequest(
            model=request.model,
            messages=messages,
            response_format=_response_format(request),
            tools=_tools(request),
            tool_choice=_tool_choice(request.tool_choice),
            parallel_tool_calls=request.parallel_tool_calls,
            reasoning_effort=None if effort is None else ReasoningEffort(effort),
        )

    def _reasoning_prompt(self) -> tuple[TextPart | ThinkingPart, ...]:
        if not self._form.reasoning_prompt:
            raise FeatureNotEnabled("prompt_mode", param="prompt_mode")
        return self._form.reasoning_prompt


_Content = list[TextPart | ThinkingPart | PreparedImage]


def _content(message: Message, position: int, form: Format, attachments: Attachments) -> _Content:
    content: _Content = []
    for index, part in content_parts(message.content, position, attachments):
        form.check(part, message.role, where_is(position, index))
        content.append(form.prepare(part) if isinstance(part, ImagePart) else part)
    return content


def _message(message: Message, parts: _Content) -> mistral.ChatMessage:
    # What is null on the wire is empty in a prompt.
    has_chunks = isinstance(message.content, list)
    content: Any = [_chunk(part) for part in parts] if has_chunks else message.content or ""
    if isinstance(message, SystemMessage):
        return mistral.SystemMessage(content=content)
    if isinstance(message, UserMessage):
        return mistral.UserMessage(content=content)
    if isinstance(message, AssistantMessage):
        calls = [_tool_call(call) for call in message.tool_calls or ()]
        return mistral.AssistantMessage(content=content, tool_calls=calls or None, prefix=message.prefix)
    return mistral.ToolMessage(content=content, tool_call_id=message.tool_call_id, name=message.name)


def _chunk(part: TextPart | ThinkingPart | PreparedImage) -> ContentChunk:
    if isinstance(part, TextPart):
        return TextChunk(text=part.text)
    if isinstance(part, ThinkingPart):
        return ThinkChunk(thinking=part.text, closed=part.is_closed)
    return PreparedChunk(prepared=part)


def _tool_call(call: wire_tools.ToolCall) -> ToolCall:
    # Arguments that came as an object are written as mistral_common writes them: FunctionCall does that.
    arguments: Any = call.function.arguments
    return ToolCall(id=call.id, function=FunctionCall(name=call.function.name, arguments=arguments))


def _tools(request: ChatCompletionRequest) -> list[Tool] | None:
    """Return the functions that the model is shown: none if it may call none."""
    tools = [Tool(function=Function(**function.model_dump())) for function in request.functions]
    return tools or None


def _tool_choice(choice: wire_tools.ToolChoice) -> ToolChoice:
    if isinstance(choice, str):
        return ToolChoiceEnum(choice)
    return NamedToolChoice(function=FunctionName(name=choice.function.name))


def _response_format(request: ChatCompletionRequest) -> ResponseFormat:
    wanted = request.response_format
    schema = wanted.json_schema
    return ResponseFormat(
        type=ResponseFormats(wanted.type),
        json_schema=None
        if schema is None
        else JsonSchema(
            name=schema.name,
            description=schema.description,
            schema=schema.schema_definition,
            strict=schema.strict,
        ),
    )
