"""The chunks a message's content may be made of. Every chunk is closed and names its `type`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from mezzo.protocol.base import Bool, Float, Int, WireModel


class TextChunk(WireModel):
    type: Literal["text"]
    text: str


class ImageURL(WireModel):
    url: str
    detail: Literal["low", "auto", "high"] | None = None


class ImageURLChunk(WireModel):
    """An image by http(s) or `data:` URL; both the short and the object form are in use."""

    type: Literal["image_url"]
    image_url: ImageURL | str


class DocumentURLChunk(WireModel):
    type: Literal["document_url"]
    document_url: str
    document_name: str | None = None


class FileChunk(WireModel):
    """A file uploaded before."""

    type: Literal["file"]
    file_id: str


class ReferenceChunk(WireModel):
    """A citation; mostly something a model says, replayed by clients."""

    type: Literal["reference"]
    reference_ids: list[Int | str]


class ToolReferenceChunk(WireModel):
    """A source that a built-in tool found; valid inside `thinking` only."""

    type: Literal["tool_reference"]
    tool: str
    title: str
    url: str | None = None
    favicon: str | None = None
    description: str | None = None


class ThinkingChunk(WireModel):
    """A reasoning trace. `closed: false` only where a prefix is to be continued inside it."""

    type: Literal["thinking"]
    thinking: list[Annotated[TextChunk | ReferenceChunk | ToolReferenceChunk, Field(discriminator="type")]]
    signature: str | None = None
    closed: Bool = True


class AudioChunk(WireModel):
    """Audio as base64 or URL: a plain string, unlike OpenAI's object."""

    type: Literal["input_audio"]
    input_audio: str


class ResourceChunk(WireModel):
    """An embedded resource, as MCP servers return them."""

    type: Literal["resource"]
    uri: str
    content: Annotated[TextChunk | ImageURLChunk, Field(discriminator="type")]


class ResourceLinkChunk(WireModel):
    type: Literal["resource_link"]
    uri: str
    metadata: dict[str, str | Bool | Int | Float] | None = None


SystemChunk = Annotated[TextChunk | ThinkingChunk, Field(discriminator="type")]
ContentChunk = Annotated[
    TextChunk
    | ImageURLChunk
    | DocumentURLChunk
    | FileChunk
    | ReferenceChunk
    | ThinkingChunk
    | AudioChunk
    | ResourceChunk
    | ResourceLinkChunk,
    Field(discriminator="type"),
]

Content = str | Sequence[WireModel] | None
"""Any message's content, for functions that read one."""


def text_of(content: Content) -> str:
    """Return the text of a content that holds nothing but text; None and `[]` are empty.

    Chunks are joined without a separator.
    Raises: TypeError naming the first chunk that is not text. `prompt.features` refuses those requests.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for index, chunk in enumerate(content):
        if not isinstance(chunk, TextChunk):
            raise TypeError(f"content[{index}] is a {type(chunk).__name__}, not text")
        texts.append(chunk.text)
    return "".join(texts)
