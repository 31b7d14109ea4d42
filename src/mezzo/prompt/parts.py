"""What a message's content is made of once nothing has to be fetched any more: text and the bytes of images.

A chunk of the wire may stand for several parts: a document becomes its text, and images of the pages that have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text that the model reads as it stands."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image as the bytes of its file (PNG, JPEG, WEBP or GIF).

    where   the chunk it came from, for errors: `messages[0].content[1]`
    """

    data: bytes = field(repr=False)
    where: str


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class Attachments:
    """The parts that stand for a request's chunks other than text, by position of message and chunk."""

    by_position: Mapping[tuple[int, int], tuple[Part, ...]] = field(default_factory=dict)

    def parts(self, message: int, chunk: int) -> tuple[Part, ...]:
        """Return the parts of one chunk. Raises: KeyError for a chunk that was not loaded."""
        return self.by_position[message, chunk]

    @property
    def images(self) -> list[ImagePart]:
        """All images, in the order of the conversation."""
        return [
            part
            for position in sorted(self.by_position)
            for part in self.by_position[position]
            if isinstance(part, ImagePart)
        ]


NO_ATTACHMENTS = Attachments()
