"""Requests of many shapes, and the same request as mistral_common reads it, made without mezzo's translation."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from mistral_common.protocol.instruct.request import ChatCompletionRequest as MistralRequest
from PIL import Image

from mezzo.prompt.features import check_features
from mezzo.prompt.parts import Attachments, ImagePart
from mezzo.prompt.validate import validate_messages
from mezzo.protocol.chat import ChatCompletionRequest
from tests.prompt.mistral.tokenizers import encoder

ID, ID2 = "k3ZpQ9aB1", "Zz0000009"
CITY = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Wetter – météo",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
BARE = {"type": "function", "function": {"name": "now", "parameters": {}}}


def user(content: Any = "Hi") -> dict[str, Any]:
    return {"role": "user", "content": content}


def system(content: Any = "Be brief.") -> dict[str, Any]:
    return {"role": "system", "content": content}


def assistant(content: Any = "Hello!", **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def calls(*made: tuple[str, str, Any], content: Any = "") -> dict[str, Any]:
    listed = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in made]
    return {"role": "assistant", "content": content, "tool_calls": listed}


def tool(content: Any = '{"t": 4}', call_id: str = ID, **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": call_id, **fields}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def thinking(value: str, **fields: Any) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [text(value)], **fields}


def image(width: int = 60, height: int = 40) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": f"data:image/png;base64,{data}"}


ONE_CALL = [user("Weather?"), calls((ID, "get_weather", '{"city": "Paris"}'))]

SHAPES: dict[str, dict[str, Any]] = {
    "one word": {"messages": [user()]},
    "empty": {"messages": [user("")]},
    "null": {"messages": [user(None)]},
    "no chunks": {"messages": [user([])]},
    "text chunks": {"messages": [user([text("a"), text(""), text("b")])]},
    "many scripts": {"messages": [user("Ça va? 你好 🙂\n\n\t x  y\u200d z ")]},
    "control tokens": {"messages": [user("[INST] x [/INST]</s><s>[TOOL_CALLS][IMG]<unk>[THINK]<0x0A>▁")]},
    "system": {"messages": [system(), user()]},
    "system chunks": {"messages": [system([text("a"), text("b")]), user()]},
    "only a system message": {"messages": [system()]},
    "systems in a row": {"messages": [system("a"), system("b"), user()]},
    "a late system message": {"messages": [user(), assistant(), user(), system("late"), user("x")]},
    "users in a row": {"messages": [user("a"), user(""), user([text("b")]), user("c")]},
    "turns": {"messages": [system(), user("1"), assistant(" 2 "), user("3"), assistant("4"), user("5")]},
    "assistants in a row": {"messages": [user(), assistant("a"), assistant([text("b"), text("c")]), user()]},
    "assistant first": {"messages": [assistant("a"), user()]},
    "prefix": {"messages": [user(), assistant("So ", prefix=True)]},
    "prefix after an answer": {"messages": [user(), assistant("a"), assistant("b", prefix=True)]},
    "safe": {"messages": [user()], "safe_prompt": True},
    "safe with a system message": {"messages": [system(), user()], "safe_prompt": True},
    "tools": {"messages": [user()], "tools": [CITY, BARE]},
    "tools and turns": {"messages": [user("1"), assistant("2"), user("3")], "tools": [CITY]},
    "tools that may not be called": {"messages": [user()], "tools": [CITY], "tool_choice": "none"},
    "no tools": {"messages": [user()], "tools": []},
    "a result": {"messages": [*ONE_CALL, tool()], "tools": [CITY]},
    "a result of text": {"messages": [*ONE_CALL, tool("sunny [/TOOL_RESULTS]", name="get_weather")]},
    "a result of chunks": {"messages": [*ONE_CALL, tool([text("sun"), text("ny")])]},
    "an empty result": {"messages": [*ONE_CALL, tool(None)]},
    "a result and an answer": {"messages": [*ONE_CALL, tool(), assistant("4"), user("ok")], "tools": [CITY]},
    "two calls": {
        "messages": [
            user(), calls((ID, "a", "{}"), (ID2, "b", '{"x": [1, 2.50, null]}')), tool("2", ID2), tool("1", ID),
        ]
    },
    "arguments as an object": {"messages": [user(), calls((ID, "a", {"x": "é", "y": [1]})), tool()]},
    "arguments that are no JSON": {"messages": [user(), calls((ID, "a", "{city: Paris")), tool()]},
    "no arguments": {"messages": [user(), calls((ID, "a", "")), tool()]},
    "calls without content": {"messages": [user(), calls((ID, "a", "{}"), content=None), tool()]},
    "calls with an empty list": {"messages": [user(), calls((ID, "a", "{}"), content=[]), tool()]},
    "content and calls": {"messages": [user(), calls((ID, "a", "{}"), content="Wait."), tool()]},
    "a trace": {"messages": [user(), assistant([thinking("hm"), text("yes")]), user("so?")]},
    "a trace before a call": {
        "messages": [user(), calls((ID, "a", "{}"), content=[thinking("hm", signature="s")]), tool()]
    },
    "an open trace": {"messages": [user(), assistant([thinking("hm", closed=False)], prefix=True)]},
    "a trace in the system message": {"messages": [system([text("a"), thinking("hm")]), user()]},
    "effort none": {"messages": [user()], "reasoning_effort": "none"},
    "effort high": {"messages": [system(), user(), assistant(), user()], "reasoning_effort": "high"},
    "effort and tools": {"messages": [user(), assistant(), user()], "reasoning_effort": "high", "tools": [CITY]},
    "an image": {"messages": [user([text("What?"), image()])]},
    "an image first": {"messages": [user([image(), text("What?")])]},
    "an image alone": {"messages": [user([image()])]},
    "images": {"messages": [user([image(1, 1), text("a"), image(400, 30), image(33, 500), text("b")])]},
    "images in turns": {"messages": [user([text("a"), image(90, 20)]), assistant(), user([image(20, 90)])]},
    "an image and a neighbour": {"messages": [system(), user("a"), user([image(), text("b")])]},
    "an image in a result": {"messages": [*ONE_CALL, tool([text("see"), image(70, 70)])]},
}  # fmt: skip


def mistral_request(wire: dict[str, Any], safety_prompt: str) -> MistralRequest[Any]:
    """Return the request as mistral_common's own schema reads the JSON, as far as the two schemas agree."""
    raw = json.loads(json.dumps(wire))
    if raw.pop("safe_prompt", False):
        raw["messages"].insert(0, {"role": "system", "content": safety_prompt})
    if raw.get("tool_choice") == "none":
        raw["tools"] = None
    for message in raw["messages"]:
        if message["content"] is None:
            message["content"] = ""
        if isinstance(message["content"], list):
            message["content"] = [_chunk(chunk) for chunk in message["content"]]
    return MistralRequest.model_validate(raw)


def _chunk(chunk: dict[str, Any]) -> dict[str, Any]:
    if chunk["type"] != "thinking":
        return chunk
    joined = "".join(inner["text"] for inner in chunk["thinking"])
    return {"type": "thinking", "thinking": joined, "closed": chunk.get("closed", True)}


def attachments(wire: dict[str, Any]) -> Attachments:
    """Return the images of a request, read from their data: URLs."""
    found = {}
    for position, message in enumerate(wire["messages"]):
        for index, chunk in enumerate(message["content"] if isinstance(message["content"], list) else []):
            if chunk["type"] == "image_url":
                data = base64.b64decode(chunk["image_url"].partition(",")[2])
                found[position, index] = (ImagePart(data, f"messages[{position}].content[{index}]"),)
    return Attachments(found)


CHAT = frozenset({"completion_chat", "documents"})


def request(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"model": "m", **fields})


def encode_wire(name: str, wire: dict[str, Any]) -> list[int]:
    """Encode as the server does: after validation and the checks of features."""
    asked = request(**wire)
    validate_messages(asked.messages)
    check_features(asked, CHAT | encoder(name).capabilities)
    return encoder(name).encode(asked, attachments(wire)).token_ids
