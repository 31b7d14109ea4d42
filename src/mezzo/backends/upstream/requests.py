"""The body that an upstream is sent: the request as it came, in the words of the upstream's dialect.

A server of Mistral's dialect gets every field as the client sent it, and none that it did not send. One of OpenAI's
gets the same under OpenAI's names; what it has no words for is refused, since such servers mostly skip what they do not
know.
"""

from __future__ import annotations

import json
from typing import Any

from mezzo.backends.upstream.facts import UpstreamFacts
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import FeatureNotEnabled
from mezzo.protocol.fim import FimCompletionRequest

Body = dict[str, Any]


def chat_body(request: ChatCompletionRequest, *, model: str, facts: UpstreamFacts) -> Body:
    """Return the body of a streamed chat completion with usage. Raises: FeatureNotEnabled."""
    body = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if facts.dialect == "openai":
        _use_openai_names(body, request, facts)
    options = body.get("stream_options") or {}
    return body | {"model": model, "stream": True, "stream_options": options | _stream_options(facts)}


def fim_body(request: FimCompletionRequest, *, model: str) -> Body:
    """Return the body of a streamed completion in the middle: Mistral's, whose streams always end with the usage."""
    return request.model_dump(mode="json", exclude_unset=True) | {"model": model, "stream": True}


def _stream_options(facts: UpstreamFacts) -> Body:
    counts = {"continuous_usage_stats": True} if facts.counts_in_every_chunk else {}
    return {"include_usage": True} | counts


def _use_openai_names(body: Body, request: ChatCompletionRequest, facts: UpstreamFacts) -> None:
    if request.safe_prompt:
        raise FeatureNotEnabled("safe_prompt", param="safe_prompt")
    if request.prompt_mode is not None:
        raise FeatureNotEnabled("prompt_mode", param="prompt_mode")
    # Neutral values of what OpenAI has not, and Mistral's choice between ways to send tool calls, of which it has one.
    for name in ("safe_prompt", "prompt_mode", "guardrails", "stream_options"):
        body.pop(name, None)
    if "random_seed" in body:
        body["seed"] = body.pop("random_seed")
    for tool in body.get("tools") or ():
        tool.setdefault("type", "function")
    if isinstance(body.get("tool_choice"), dict):
        body["tool_choice"].setdefault("type", "function")
    elif body.get("tool_choice") == "any":
        body["tool_choice"] = "required"
    if body.get("service_tier") == "standard_only":
        body["service_tier"] = "default"
    if not request.prediction.content:
        body.pop("prediction", None)
    body["messages"] = [_openai_message(message) for message in body["messages"]]
    if request.continued is not None:
        body |= _continuation(facts)


def _continuation(facts: UpstreamFacts) -> Body:
    """Return what makes the answer go on from the last message; of OpenAI's dialect only vLLM has words for it."""
    if not facts.is_vllm:
        raise FeatureNotEnabled("prefix", param="messages")
    return {"continue_final_message": True, "add_generation_prompt": False}


def _openai_message(message: Body) -> Body:
    message.pop("prefix", None)
    for call in message.get("tool_calls") or ():
        call.pop("index", None)
        call.setdefault("type", "function")
        arguments = call["function"]["arguments"]
        if not isinstance(arguments, str):
            call["function"]["arguments"] = json.dumps(arguments, ensure_ascii=False)
    content = message.get("content")
    if isinstance(content, list):
        for chunk in content:
            if isinstance(chunk.get("image_url"), str):
                chunk["image_url"] = {"url": chunk["image_url"]}
    return message
