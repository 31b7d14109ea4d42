"""What becomes of every field of a chat request: one table for the server, the documentation and the tests.

A value that fits the wire schema but cannot be honoured is refused by name; nothing is ignored in silence.
`docs/request-fields.md` is generated from `FIELDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mezzo.prompt.content import where_is
from mezzo.prompt.json_schema import MAX_SCHEMA_NODES, check_schema, num_nodes
from mezzo.prompt.validate import check_function_name
from mezzo.protocol.chat import MAX_CHOICES, MAX_STOP_LENGTH, MAX_STOP_STRINGS, ChatCompletionRequest
from mezzo.protocol.content import TextChunk
from mezzo.protocol.errors import DomainError, FeatureNotEnabled, InvalidArguments, InvalidTools
from mezzo.protocol.fim import FimCompletionRequest
from mezzo.protocol.tools import AnyTool, NamedToolChoice, Tool

MAX_TOOLS = 128

# No capability of a model's card: whether the server reads documents.
DOCUMENTS = "documents"

_CAPABILITY_OF_CHUNK = {
    "image_url": "vision",
    "document_url": DOCUMENTS,
    "thinking": "reasoning",
    "input_audio": "audio",
}
_ROLES_OF_CHUNK = {
    "image_url": {"user", "tool"},
    "document_url": {"user", "tool"},
    "thinking": {"system", "assistant"},
}

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

    `capabilities` are the wire's names of what the card of the model promises and its prompt format has, and
    `documents` where the server can read them.
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


def check_fim_features(request: FimCompletionRequest) -> None:
    """Check that every field of a request to fill in the middle can be honoured. Raises: InvalidArguments."""
    if request.min_tokens:
        raise _unsupported("min_tokens", param="min_tokens")


def _check_model(_: ChatCompletionRequest, capabilities: frozenset[str]) -> None:
    if "completion_chat" not in capabilities:
        raise FeatureNotEnabled("Chat completion", param="model")


def _check_messages(request: ChatCompletionRequest, capabilities: frozenset[str]) -> None:
    for position, message in enumerate(request.messages):
        if message.content is None or isinstance(message.content, str):
            continue
        for index, chunk in enumerate(message.content):
            if not isinstance(chunk, TextChunk):
                what = f"{where_is(position, index)}: {chunk.type} content"
                _check_chunk(chunk.type, what, message.role, capabilities)


def _check_chunk(kind: str, what: str, role: str, capabilities: frozenset[str]) -> None:
    """Refuse a chunk that this server or model cannot take at all, or not in messages of this role."""
    capability = _CAPABILITY_OF_CHUNK.get(kind)
    if capability is not None and capability not in capabilities:
        raise FeatureNotEnabled(what, param="messages")
    if kind not in _ROLES_OF_CHUNK:
        raise _unsupported(what, param="messages")
    if role not in _ROLES_OF_CHUNK[kind]:
        raise InvalidArguments(f"{what} is not supported in {role} messages", param="messages")


def _check_response_format(request: ChatCompletionRequest, _: frozenset[str]) -> None:
    response_format = request.response_format
    if response_format.type != "json_schema" and response_format.json_schema is not None:
        raise InvalidArguments(
            "response_format.json_schema needs response_format.type json_schema", param="response_format"
        )


def _check_tool_choice(request: ChatCompletionRequest, _: frozenset[str]) -> None:
    choice = request.tool_choice
    if choice in ("auto", "none"):
        return
    names = [tool.function.name for tool in request.tools or () if isinstance(tool, Tool)]
    if not names:
        raise InvalidArguments("tool_choice asks for a call, and there are no tools", param="tool_choice")
    if isinstance(choice, NamedToolChoice) and choice.function.name not in names:
        raise InvalidArguments(
            f"tool_choice names {choice.function.name}, which is none of the tools", param="tool_choice"
        )


def _check_tools(request: ChatCompletionRequest, capabilities: frozenset[str]) -> None:
    tools = request.tools or []
    if len(tools) > MAX_TOOLS:
        raise InvalidTools(f"Too many tools: {len(tools)}, the maximum is {MAX_TOOLS}.", param="tools")
    _check_schema_sizes(tools)
    for tool in tools:
        if not isinstance(tool, Tool):
            raise InvalidTools(f"{type(tool).__name__} connector is not supported", param="tools")
        check_function_name(tool.function.name)
        _check_tool_schema(tool.function.parameters)
    if not tools or request.tool_choice == "none":
        return
    if "function_calling" not in capabilities:
        raise FeatureNotEnabled("Function calling", param="tools")


def _check_schema_sizes(tools: Sequence[AnyTool]) -> None:
    """Bound what is checked below, on the event loop: a schema is walked node by node."""
    total = 0
    for tool in tools:
        total += num_nodes(tool.function.parameters) if isinstance(tool, Tool) else 0
        if total > MAX_SCHEMA_NODES:
            raise InvalidTools(
                f"The parameters of the tools have more than {MAX_SCHEMA_NODES} parts in all.", param="tools"
            )


def _check_tool_schema(schema: dict[str, Any]) -> None:
    """Check that `schema` is a JSON Schema of draft 7, which is what the reference's tools are written in."""
    import jsonschema  # noqa: PLC0415 - only requests with tools pay for it

    check_schema(jsonschema.Draft7Validator, schema, "tool schema", param="tools")


def _check_reasoning_effort(request: ChatCompletionRequest, capabilities: frozenset[str]) -> None:
    if request.reasoning_effort is not None and "reasoning" not in capabilities:
        raise FeatureNotEnabled("reasoning_effort", param="reasoning_effort")


def _check_prompt_mode(request: ChatCompletionRequest, capabilities: frozenset[str]) -> None:
    if request.prompt_mode is not None and "reasoning" not in capabilities:
        raise FeatureNotEnabled("prompt_mode", param="prompt_mode")


def check_reasoning_effort(effort: str | None, supported: Sequence[str]) -> None:
    """Check a request's effort against the values that its model knows; prompt encoders call it, who know them.

    Raises: FeatureNotEnabled for a model without adjustable reasoning, InvalidArguments naming the values.
    """
    if effort is None or effort in supported:
        return
    if not supported:
        raise FeatureNotEnabled("reasoning_effort", param="reasoning_effort")
    raise InvalidArguments(
        f"reasoning_effort {effort} is not supported for this model, supported values: {list(supported)}",
        param="reasoning_effort",
    )


def _check_prediction(request: ChatCompletionRequest, _: frozenset[str]) -> None:
    if request.prediction.content and request.num_choices > 1:
        raise InvalidArguments("prediction is not supported with n greater than 1", param="prediction")


FIELDS: tuple[FieldSupport, ...] = (
    FieldSupport("model", "honoured", "A name of the catalog that is served here.", _check_model),
    FieldSupport(
        "messages",
        "in part",
        "Roles `system`, `user`, `assistant` (with `tool_calls`, with `prefix` on the last message) and "
        "`tool`; content as text or chunks. `image_url` chunks where the model has vision and `document_url` chunks "
        "where the server reads documents: in `user` messages, and in `tool` messages as far as the model's prompt "
        "format shows them there. `thinking` chunks of text in `assistant` messages, and `system` messages of some "
        "models, where the model reasons; `signature` has no effect. Any other chunk is refused.",
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
        "response_format",
        "honoured",
        "`json_object` and `json_schema` bind the answer: one that ends with `stop` parses and fits the schema, "
        "whatever `strict` says. Keywords that no grammar can hold (`contains`, `not` with a pattern, ...) are refused "
        "by name; of `format`, only the common ones are held, as JSON Schema lets one.",
        _check_response_format,
    ),
    FieldSupport(
        "tools",
        "in part",
        f"At most {MAX_TOOLS} functions, whose `parameters` are a JSON Schema of draft 7, of "
        f"{MAX_SCHEMA_NODES:,} parts in all. Arguments of calls fit them; where no grammar can hold them, arguments "
        "are any object, and with `strict: true` the request is refused. The hosted tools are refused.",
        _check_tools,
    ),
    FieldSupport(
        "tool_choice",
        "honoured",
        "`none` leaves the tools out of the prompt. With `any`, `required` and a function's name the answer is a call.",
        _check_tool_choice,
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
    FieldSupport(
        "prediction",
        "honoured",
        "What the answer is expected to be: tokens of it that hold cost one step together. The answer is the same "
        "with and without. `usage.completion_tokens_details` counts tokens that were tried and held, or did not. Not "
        "with `n` above 1; an empty `content` means off.",
        _check_prediction,
    ),
    FieldSupport("parallel_tool_calls", "honoured", "`false`: one call at most."),
    FieldSupport(
        "reasoning_effort",
        "in part",
        "Null, or one of the values that the model was trained on; none for models without adjustable reasoning.",
        _check_reasoning_effort,
    ),
    FieldSupport(
        "prompt_mode",
        "in part",
        "Null; `reasoning` for models that reason and whose checkpoint brings the system prompt that makes them "
        "(`SYSTEM_PROMPT.txt`): it is put before the conversation.",
        _check_prompt_mode,
    ),
    FieldSupport("guardrails", "refused", "Only null or `[]`.", _only("guardrails", None, [])),
    FieldSupport("prompt_cache_key", "no effect", "Accepted: a hint for caches, and nothing to steer here."),
    FieldSupport(
        "service_tier",
        "honoured",
        "`auto`: `priority` where the workspace has it, else `standard`; usage says which.",
    ),
    FieldSupport("safe_prompt", "honoured", "Puts mezzo's safety prompt before the conversation."),
    FieldSupport(
        "stream_options",
        "honoured",
        "`stream_tool_calls: true` streams tool calls as they are written, else each whole. `include_usage` has no "
        "effect: `usage` is in the last event of every stream.",
    ),
)
