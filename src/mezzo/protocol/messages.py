"""The four kinds of message, told apart by `role`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mezzo.protocol.base import Bool, WireModel
from mezzo.protocol.content import ContentChunk, SystemChunk
from mezzo.protocol.tools import ToolCall


class SystemMessage(WireModel):
    role: Literal["system"]
    content: str | list[SystemChunk]


class UserMessage(WireModel):
    role: Literal["user"]
    content: str | list[ContentChunk] | None


class AssistantMessage(WireModel):
    """What the model said. `prefix` on the last message has the answer continue this text."""

    role: Literal["assistant"]
    content: str | list[ContentChunk] | None = None
    tool_calls: list[ToolCall] | None = None
    prefix: Bool = False


class ToolMessage(WireModel):
    """The result of one call."""

    role: Literal["tool"]
    content: str | list[ContentChunk] | None
    tool_call_id: str | None = None
    name: str | None = None


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage,
    Field(discriminator="role"),
]
