"""The tokens that stand for an image in a prompt, and where they are.

An image of R rows and C columns is R lines of C image tokens each, a break after every line and an end in place of the
last break: for 2 x 3, `[IMG] [IMG] [IMG] [IMG_BREAK] [IMG] [IMG] [IMG] [IMG_END]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mezzo.prompt.encoder import EncodedPrompt, PlacedImage
from mezzo.prompt.media.images import PreparedImage


class WrongImageCount(Exception):
    """A prompt has more or fewer places for images than the conversation has images."""


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """Ids of a checkpoint's image tokens; `row_break` and `end` are None where images are patches only."""

    image: int
    row_break: int | None = None
    end: int | None = None

    def layout(self, image: PreparedImage) -> list[int]:
        """Return the tokens of one image."""
        return self.grid(image.rows, image.columns)

    def grid(self, rows: int, columns: int) -> list[int]:
        """Return the tokens of an image of so many merged patches."""
        row = [self.image] * columns
        if self.row_break is None or self.end is None:
            return row * rows
        tokens = [*row, self.row_break] * rows
        tokens[-1] = self.end
        return tokens

    def expand(self, token_ids: Sequence[int], images: Sequence[PreparedImage]) -> EncodedPrompt:
        """Put each image's tokens where the prompt has a single image token for it.

        Raises: WrongImageCount.
        """
        waiting = iter(images)
        expanded: list[int] = []
        placed: list[PlacedImage] = []
        for token_id in token_ids:
            if token_id != self.image:
                expanded.append(token_id)
                continue
            image = _next(waiting)
            tokens = self.layout(image)
            placed.append(PlacedImage(image, start=len(expanded), num_tokens=len(tokens)))
            expanded += tokens
        _expect_end(waiting)
        return EncodedPrompt(expanded, tuple(placed))

    def locate(self, token_ids: list[int], images: Sequence[PreparedImage]) -> EncodedPrompt:
        """Find the images of a prompt that holds all their tokens already, in this order.

        Raises: WrongImageCount.
        """
        waiting = iter(images)
        placed: list[PlacedImage] = []
        position = 0
        while position < len(token_ids):
            if token_ids[position] != self.image:
                position += 1
                continue
            image = _next(waiting)
            num_tokens = len(self.layout(image))
            placed.append(PlacedImage(image, start=position, num_tokens=num_tokens))
            position += num_tokens
        _expect_end(waiting)
        return EncodedPrompt(token_ids, tuple(placed))


def _next(waiting: Iterator[PreparedImage]) -> PreparedImage:
    try:
        return next(waiting)
    except StopIteration:
        raise WrongImageCount("the prompt has places for more images than there are") from None


def _expect_end(waiting: Iterator[PreparedImage]) -> None:
    if next(waiting, None) is not None:
        raise WrongImageCount("the prompt has places for fewer images than there are")
