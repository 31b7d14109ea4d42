"""What becomes of every field of a chat request: one table for the server, the documentation and the tests.

A value that fits the wire schema but cannot be honoured is refused by name; nothing is ignored in silence.
`docs/request-fields.md` is generated from `FIELDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mezzo.prompt.validate import check_function_name
from mezzo.protocol.chat import MAX_CHOICES, MAX_STOP_LENGTH, MAX_STOP_STRINGS, ChatCompletionRequest
from mezzo.protocol.content import TextChunk
from mezzo.protocol.errors import DomainError, FeatureNotEnabled, InvalidArguments, InvalidTools
from mezzo.protocol.tools import Tool

MAX_TOOLS = 128

_CAPABILITY_OF_CHUNK = {"image_url": "vision", "input_audio": "audio", "thinking": "reasoning"}

Support = Literal["honoured", "in part", "refused", "no effect"]
Check = Callable[[ChatCompletionRequest, frozenset[str]], None]


@dataclass(frozen=True, slots=True)
class FieldSupport:
    """What the server does with one field.

    note    for people: which values have which effect
    check   raises what the client is told when the request's value cannot be honoured
    """

    name: str
    support: Support
    note: str
    check: Check | None = None


def check_features(request: ChatCompletionRequest, capabilities: frozenset[str]) -> None:
    """Refuse a request that asks for something its model or this server does not have.

    `capabilities` are the wire's names of what the card of the model promises.
    Raises: InvalidArguments, FeatureNotEnabled, InvalidTools or InvalidFunctionCall, naming the field.
    """
    for field in FIELDS:
        if field.check is not None:
            field.check(request, capabilities)


def _only(name: str, *neutral: object, feature: str | None = None) -> Check:
    """Make the check of a field that may hold `neutral` values only.

    feature: the words of the refusal where the reference has its own, else the field's name is used.
    """

    def check(request: ChatCompletionRequest, _: frozenset[str]) -> None:
        if getattr(request, name) in neutral:
            return
        if feature is not None:
            raise FeatureNotEnabled(feature, param=name)
        raise _unsupported(name, param=name)

    return check


def _unsupported(what: str, *, param: str) -> DomainError:
    return InvalidArguments(f"{what} is not supported by this server", param=param)


def _check_model(_: ChatCompletionRequest, capabilities: frozenset[str]) -> None:
    if "completion_chat" not in capabilities:
        raise FeatureNotEnabled("Chat completion", param="model")


def _check_messages(request: ChatCompletionRequest, capabilities: frozenset[str]) -> None:
    for position, message in enumerate(request.messages):
        if message.content is None or isinstance(message.content, str):
            continue
        for index, chunk in enumerate(message.content):
            if isinstance(chunk, TextChunk):
                continue
            what = f"messages[{position}].content[{index}]: {chunk.type} content"
            capability = _CAPABILITY_OF_CHUNK.get(chunk.type)
            if capability is not None and capability not in capabilities:
                raise FeatureNotEnabled(what, param="messages")
            raise _unsupported(what, param="messages")


def _check_response_format(request: ChatCompletionRequest, _: frozenset[str]) -> None:
    response_format = request.response_format
    if response_format.type != "text":
        raise _unsupported(f"response_format {response_format.type}", param="response_format")
    if response_format.json_schema is not None:
        raise InvalidArguments(
            "response_format.json_schema needs response_format.type json_schema", param="response_format"
        )


def _check_tools(request: ChatCompletionRequest, capabilities: frozenset[str]) -> None:
    tools = request.tools or []
    if len(tools) > MAX_TOOLS:
        raise InvalidTools(f"Too many tools: {len(tools)}, the maximum is {MAX_TOOLS}.", param="tools")
    for tool in tools:
        if not isinstance(tool, Tool):
            raise InvalidTools(f"{type(tool).__name__} connector is not supported", param="tools")
        check_function_name(tool.function.name)
    if not tools or request.tool_choice == "none":
        return
    if "function_calling" not in capabilities:
        raise FeatureNotEnabled("Function calling", param="tools")
    raise _unsupported("tools with tool_choice other than none", param="tools")


def _check_prediction(request: ChatCompletionRequest, _: frozenset[str]) -> None:
    if request.prediction.content:
        raise _unsupported("prediction", param="prediction")


FIELDS: tuple[FieldSupport, ...] = (
    FieldSupport("model", "honoured", "A name of the catalog that is served here.", _check_model),
    FieldSupport(
        "messages",
        "in part",
        "Roles `system`, `user`, `assistant` (with `tool_calls`, with `prefix` on the last message) and "
        "`tool`; content as text or `text` chunks. Any other chunk is refused.",
        _check_messages,
    ),
    FieldSupport("temperature", "honoured", "0 is greedy. Default: the card's `default_model_temperature`."),
    FieldSupport("top_p", "honoured", "Default: 1."),
    FieldSupport(
        "max_tokens",
        "honoured",
        "Default: up to the end of the context. 0 gives an empty answer that finishes with `length`.",
    ),
    FieldSupport("stream", "honoured", "Server-sent events, ended by `[DONE]`."),
    FieldSupport(
        "stop",
        "honoured",
        f"At most {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_LENGTH} characters; never part of the answer.",
    ),
    FieldSupport("random_seed", "honoured", "Same seed, same request, same weights: same answer."),
    FieldSupport("metadata", "no effect", "Accepted, as the reference does: it never changes the answer."),
    FieldSupport(
        "response_format", "in part", 'Only `{"type": "text"}`; JSON is refused.', _check_response_format
    ),
    FieldSupport(
        "tools",
        "in part",
        f"None, `[]`, or at most {MAX_TOOLS} functions together with `tool_choice: none`, which leaves them "
        "out of the prompt. Functions that could be called, and the hosted tools, are refused.",
        _check_tools,
    ),
    FieldSupport(
        "tool_choice",
        "in part",
        "`auto` and `none`; a choice that forces a call is refused.",
        _only("tool_choice", "auto", "none"),
    ),
    FieldSupport("presence_penalty", "honoured", "Default: 0."),
    FieldSupport("frequency_penalty", "honoured", "Default: 0."),
    FieldSupport("min_tokens", "refused", "Only null or 0.", _only("min_tokens", None, 0)),
    FieldSupport("repetition_penalty", "refused", "Only null or 1.", _only("repetition_penalty", None, 1.0)),
    FieldSupport("top_k", "refused", "Only null.", _only("top_k", None, feature="top_k sampling")),
    FieldSupport(
        "logprobs", "refused", "Only null or false.", _only("logprobs", None, False, feature="Logprobs")
    ),
    FieldSupport(
        "top_logprobs", "refused", "Only null or 0.", _only("top_logprobs", None, 0, feature="Logprobs")
    ),
    FieldSupport("prompt_logprobs", "refused", "Only null or false.", _only("prompt_logprobs", None, False)),
    FieldSupport("top_prompt_logprobs", "refused", "Only null or 0.", _only("top_prompt_logprobs", None, 0)),
    FieldSupport("n", "honoured", f"Default: 1; at most {MAX_CHOICES}. The prompt is counted once."),
    FieldSupport("prediction", "refused", "Only an empty `content`, which means off.", _check_prediction),
    FieldSupport(
        "parallel_tool_calls", "no effect", "Accepted: without callable tools there is no call to limit."
    ),
    FieldSupport(
        "reasoning_effort",
        "refused",
        "Only null; as the reference does for models without adjustable reasoning.",
        _only("reasoning_effort", None, feature="reasoning_effort"),
    ),
    FieldSupport("prompt_mode", "refused", "Only null.", _only("prompt_mode", None, feature="prompt_mode")),
    FieldSupport("guardrails", "refused", "Only null or `[]`.", _only("guardrails", None, [])),
    FieldSupport("prompt_cache_key", "no effect", "Accepted: a hint for caches, and nothing to steer here."),
    FieldSupport("service_tier", "honoured", "Every request is served as `standard`; the answer says so."),
    FieldSupport("safe_prompt", "honoured", "Puts mezzo's safety prompt before the conversation."),
    FieldSupport(
        "stream_options",
        "no effect",
        "Accepted: `usage` is in the last event of every stream, and there are no tool calls to stream.",
    ),
)
