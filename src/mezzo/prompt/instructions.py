"""System messages that mezzo puts before a conversation: what the request asks for and the model is to know."""

from __future__ import annotations

import json

from mezzo.prompt.safety import SAFETY_PROMPT
from mezzo.protocol.chat import ChatCompletionRequest

CALL_TAG, END_CALL_TAG = "<tool_call>", "</tool_call>"

_TOOLS = (
    "You can call functions. To call some, answer with a list of calls between tags and with nothing after it:\n"
    '{tag}[{{"name": "FUNCTION", "arguments": {{"PARAMETER": "VALUE"}}}}]{end_tag}\n'
    "Functions, one a line:\n{functions}"
)
_SCHEMA = "Answer with JSON that is an instance of this JSON Schema, and with nothing else: {schema}"
_OBJECT = "Answer with one JSON object and with nothing else."


def safety(request: ChatCompletionRequest) -> list[str]:
    """Return the safety prompt where it is asked for."""
    return [SAFETY_PROMPT] if request.safe_prompt else []


def response_format(request: ChatCompletionRequest) -> list[str]:
    """Return what tells the model to answer in JSON, where it has to."""
    wanted = request.response_format
    if wanted.type == "text":
        return []
    if wanted.json_schema is None:
        return [_OBJECT]
    schema = json.dumps(wanted.json_schema.schema_definition, ensure_ascii=False)
    return [_SCHEMA.format(schema=schema)]


def tools(request: ChatCompletionRequest) -> list[str]:
    """Return the functions and how to call them, for models that were never taught a way of their own."""
    shown = [
        json.dumps(function.model_dump(exclude={"strict"}), ensure_ascii=False)
        for function in request.functions
    ]
    if not shown:
        return []
    return [_TOOLS.format(tag=CALL_TAG, end_tag=END_CALL_TAG, functions="\n".join(shown))]
