"""From the bytes of an image to the pixels that a vision encoder reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mezzo.prompt.parts import ImagePart


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image at the size its checkpoint reads it.

    pixels    (rows * token_size, columns * token_size, 3) uint8, RGB, contiguous
    rows, columns   merged patches, each of which becomes one token
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    rows: int
    columns: int

    @property
    def digest(self) -> bytes:
        """SHA-256 of size and pixels: equal for images that the encoder cannot tell apart."""
        digest = hashlib.sha256(f"{self.pixels.shape}".encode())
        digest.update(self.pixels.data)
        return digest.digest()


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """How a checkpoint wants its images.

    patch_size           pixels along the edge of the encoder's patches
    spatial_merge_size   patches along the edge of what becomes one token
    longest_edge         larger images are scaled down to it
    rounding             of the scaled edges to pixels: `floor` in Hugging Face's processor, `nearest` in mistral-common
    """

    patch_size: int
    longest_edge: int
    spatial_merge_size: int = 1
    rounding: Literal["floor", "nearest"] = "floor"

    def prepare(self, part: ImagePart) -> PreparedImage:
        """Decode and resize. Raises: InvalidFile naming the chunk."""
        raise NotImplementedError
