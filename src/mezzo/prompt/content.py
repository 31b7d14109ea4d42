"""A message's content as one flat list of what the model is to read, whatever chunks the wire had for it."""

from __future__ import annotations

from dataclasses import dataclass

from mezzo.prompt.parts import Attachments, ImagePart, TextPart
from mezzo.protocol.content import Content, TextChunk, ThinkingChunk
from mezzo.protocol.errors import InvalidArguments


@dataclass(frozen=True, slots=True)
class ThinkingPart:
    """A reasoning trace; it goes on where the model begins if it is not closed."""

    text: str
    is_closed: bool


ContentPart = TextPart | ImagePart | ThinkingPart


def where_is(message: int, chunk: int) -> str:
    """Return the words that name a chunk in an error."""
    return f"messages[{message}].content[{chunk}]"


def content_parts(content: Content, message: int, attachments: Attachments) -> list[tuple[int, ContentPart]]:
    """Return the parts of the message at position `message`, each with the position of its chunk.

    A chunk that stands for several parts, as a document does, has them in a row.
    Raises: InvalidArguments for a trace that holds something other than text.
    """
    if content is None:
        return []
    if isinstance(content, str):
        return [(0, TextPart(content))]
    parts: list[tuple[int, ContentPart]] = []
    for index, chunk in enumerate(content):
        if isinstance(chunk, TextChunk):
            parts.append((index, TextPart(chunk.text)))
        elif isinstance(chunk, ThinkingChunk):
            parts.append((index, _thinking(chunk, where_is(message, index))))
        else:
            parts += [(index, part) for part in attachments.parts(message, index)]
    return parts


def _thinking(chunk: ThinkingChunk, where: str) -> ThinkingPart:
    texts = []
    for index, inner in enumerate(chunk.thinking):
        if not isinstance(inner, TextChunk):
            raise InvalidArguments(
                f"{where}.thinking[{index}]: {inner.type} content is not supported by this server",
                param="messages",
            )
        texts.append(inner.text)
    return ThinkingPart("".join(texts), chunk.closed)
