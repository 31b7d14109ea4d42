"""How many tokens a prompt can have at most, and has about: the tokenizer that could count them is the upstream's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mezzo.protocol.base import WireModel
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.content import ImageURLChunk, TextChunk, ThinkingChunk
from mezzo.protocol.fim import FimCompletionRequest
from mezzo.protocol.messages import AssistantMessage, Message, ToolMessage

# Role, turn and end tokens of a message; templates write them as text of about this length at worst.
_MESSAGE_TOKENS = 16
# What a chat template says by itself: default system prompts have up to a thousand tokens.
_TEMPLATE_TOKENS = 1024
# The largest image of the family: 1540 x 1540 pixels are 55 rows of 55 patches and a break each.
_IMAGE_TOKENS = 3080
# A document may be a thousand pages: more than any context, to which the caller cuts a bound.
_DOCUMENT_TOKENS = 2**20
_BYTES_PER_TOKEN = 4


def prompt_token_bound(request: ChatCompletionRequest | FimCompletionRequest) -> int:
    """Return more tokens than the prompt of a request can have.

    A token of a byte-level vocabulary stands for one byte of UTF-8 or more, so a text has no more tokens than bytes.
    Tools and schemas are counted as the longest JSON that templates make of them, indented and escaped. On top come
    16 tokens for each message, and once 1,024 for what a template says by itself; 3,080 for each image, the most that
    one costs in Mistral's models (others may take more of a large image); and 2**20 for each document, so in effect
    the whole context: no prompt has more tokens than that, and whoever knows the context takes the smaller.
    """
    if isinstance(request, FimCompletionRequest):
        return _num_bytes(request.prompt) + _num_bytes(request.suffix or "") + _MESSAGE_TOKENS
    return (
        _num_text_bytes(request)
        + _MESSAGE_TOKENS * len(request.messages)
        + _TEMPLATE_TOKENS
        + _num_file_tokens(request)
    )


def prompt_token_estimate(request: ChatCompletionRequest | FimCompletionRequest) -> int:
    """Return about how many tokens the prompt of a request has: four bytes a token, as in English and code.

    For requests that are cut off before the upstream has counted.
    """
    if isinstance(request, FimCompletionRequest):
        return 1 + (_num_bytes(request.prompt) + _num_bytes(request.suffix or "")) // _BYTES_PER_TOKEN
    text = 1 + _num_text_bytes(request) // _BYTES_PER_TOKEN
    return text + sum(isinstance(chunk, ImageURLChunk) for chunk in _files(request)) * _IMAGE_TOKENS // 2


def has_files(request: ChatCompletionRequest) -> bool:
    """Tell whether a request has images or documents."""
    return any(True for _ in _files(request))


def _num_text_bytes(request: ChatCompletionRequest) -> int:
    total = sum(map(_num_bytes_of_message, request.messages))
    if request.tools:
        total += _num_json_bytes([tool.model_dump(by_alias=True) for tool in request.tools])
    if request.response_format.json_schema is not None:
        total += _num_json_bytes(request.response_format.json_schema.model_dump(by_alias=True))
    return total


def _num_bytes_of_message(message: Message) -> int:
    content = message.content
    if content is None or isinstance(content, str):
        total = _num_bytes(content or "")
    else:
        total = sum(map(_num_bytes_of_chunk, content))
    if isinstance(message, AssistantMessage):
        for call in message.tool_calls or ():
            total += _num_json_bytes(call.model_dump())
    elif isinstance(message, ToolMessage):
        total += _num_bytes(message.name or "") + _num_bytes(message.tool_call_id or "")
    return total


def _num_bytes_of_chunk(chunk: WireModel) -> int:
    if isinstance(chunk, TextChunk):
        return _num_bytes(chunk.text)
    return _num_json_bytes(chunk.model_dump()) if isinstance(chunk, ThinkingChunk) else 0


def _num_file_tokens(request: ChatCompletionRequest) -> int:
    return sum(
        _IMAGE_TOKENS if isinstance(chunk, ImageURLChunk) else _DOCUMENT_TOKENS for chunk in _files(request)
    )


def _files(request: ChatCompletionRequest) -> Iterator[WireModel]:
    """Yield every chunk that is not text: images, and what counts like a document."""
    for message in request.messages:
        if message.content is not None and not isinstance(message.content, str):
            for chunk in message.content:
                if not isinstance(chunk, TextChunk | ThinkingChunk):
                    yield chunk


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _num_json_bytes(value: Any) -> int:
    return len(json.dumps(value, indent=4))
