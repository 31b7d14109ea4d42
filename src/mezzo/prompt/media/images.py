"""From the bytes of an image to the pixels that a vision encoder reads."""

from __future__ import annotations

import hashlib
import math
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mezzo.prompt.media.image_headers import ImageError, ImageHeader, ImageLimits, read_header
from mezzo.prompt.parts import ImagePart
from mezzo.prompt.tokenizer import read_json
from mezzo.protocol.errors import InvalidFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_CONCURRENT_DECODES = 2
_BICUBIC = 3  # Pillow's number, as `resample` in a checkpoint's files


class UnsupportedImages(Exception):
    """A checkpoint wants its images in a way that is not supported; the message says which."""


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
    """How a checkpoint wants its images. Its methods may be called from several threads at once.

    patch_size           pixels along the edge of the encoder's patches
    longest_edge         larger images are scaled down to it
    spatial_merge_size   patches along the edge of what becomes one token
    rounding             of the scaled edges to pixels: `floor` in Hugging Face's processor, `nearest` in mistral-common
    limits               of the files

    Pixels are those of transformers' PixtralImageProcessorPil, bit for bit; how far others are from them is
    recorded in docs/decisions/0013-images.md.
    """

    patch_size: int
    longest_edge: int
    spatial_merge_size: int = 1
    rounding: Literal["floor", "nearest"] = "floor"
    limits: ImageLimits = field(default_factory=ImageLimits)
    # An image may take a gigabyte while it is decoded, so few are at a time.
    _decoding: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(_MAX_CONCURRENT_DECODES),
        init=False,
        repr=False,
        compare=False,
    )

    @classmethod
    def from_folder(cls, folder: Path, *, limits: ImageLimits | None = None) -> ImageProcessor | None:
        """Read how a Hugging Face checkpoint wants its images; None if it has no vision encoder.

        `processor_config.json`, then `preprocessor_config.json`, then `config.json`; what none of them says is as
        in transformers: patches of 16, merged by 2 in models of type mistral3 and else not, 1024 for the longest edge.
        Raises: UnsupportedImages for an encoder other than Pixtral's, another way of resizing, or files that
        contradict each other; UnsupportedTokenizer for a file that is no JSON object.
        """
        config = _read_optional(folder / "config.json")
        vision = config.get("vision_config")
        if not vision:
            return None
        if (kind := vision.get("model_type", "pixtral")) != "pixtral":
            raise UnsupportedImages(f"vision encoder {kind} is not supported")
        processor = _read_optional(folder / "processor_config.json")
        images = {
            **_read_optional(folder / "preprocessor_config.json"),
            **processor.get("image_processor", {}),
        }
        if images.get("resample", _BICUBIC) != _BICUBIC:
            raise UnsupportedImages(
                f"resample {images['resample']} is not supported, only {_BICUBIC} (bicubic)"
            )
        patch_size = _agreed("patch_size", processor, vision, images)
        merge_size = _agreed("spatial_merge_size", processor, config)
        default_merge_size = 2 if config.get("model_type") == "mistral3" else 1
        size = images.get("size", {})
        return cls(
            patch_size=16 if patch_size is None else patch_size,
            longest_edge=_edge(size, "size", default=1024),
            spatial_merge_size=default_merge_size if merge_size is None else merge_size,
            limits=limits or ImageLimits(),
        )

    @property
    def token_size(self) -> int:
        """Pixels along the edge of what becomes one token."""
        return self.patch_size * self.spatial_merge_size

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Return rows and columns of tokens for an image of this many pixels, at least one of each.

        1600x1000 at longest_edge 1540, token_size 28: ratio 1.0390, scaled to 1540x962, so 35 rows of 55.
        """
        ratio = max(height / self.longest_edge, width / self.longest_edge)
        if ratio > 1:
            scale = math.floor if self.rounding == "floor" else round
            width, height = scale(width / ratio), scale(height / ratio)
        rows, columns = (max(1, math.ceil(edge / self.token_size)) for edge in (height, width))
        return rows, columns

    def check(self, part: ImagePart) -> tuple[int, int]:
        """Judge format and size of an image without decoding it, and return its grid: rows and columns.

        Raises: InvalidFile naming the chunk.
        """
        header = check_header(part, self.limits)
        width, height = header.width, header.height
        return self.grid(height, width) if header.orientation >= 5 else self.grid(width, height)

    def prepare(self, part: ImagePart) -> PreparedImage:
        """Decode and resize. Slow: a tenth of a second for a large photo. Raises: InvalidFile naming the chunk."""
        # Half of what a server imports for its prompts would be this, and most chats have no images.
        from mezzo.prompt.media.pixels import decode_rgb, resized  # noqa: PLC0415

        header = check_header(part, self.limits)
        try:
            with self._decoding:
                image = decode_rgb(part.data, header)
                rows, columns = self.grid(*image.size)
                pixels = resized(image, columns * self.token_size, rows * self.token_size)
        except ImageError as error:
            raise _invalid(part, error) from error
        return PreparedImage(pixels, rows, columns)


def check_header(part: ImagePart, limits: ImageLimits) -> ImageHeader:
    """Judge format and size of an image without decoding it. Raises: InvalidFile naming the chunk."""
    try:
        return read_header(part.data, limits)
    except ImageError as error:
        raise _invalid(part, error) from error


def _invalid(part: ImagePart, error: ImageError) -> InvalidFile:
    return InvalidFile(f"{part.where}: {error}", param="messages")


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _agreed(name: str, *files: dict[str, Any]) -> int | None:
    """Return the value that all files which have one agree on. Raises: UnsupportedImages."""
    found = {_edge(file[name], name) for file in files if file.get(name) is not None}
    if len(found) > 1:
        raise UnsupportedImages(f"{name} differs between the checkpoint's files: {sorted(found)}")
    return found.pop() if found else None


def _edge(value: object, name: str, default: int = 0) -> int:
    """Read an edge in pixels or patches, written as a number or as a square's height and width."""
    if isinstance(value, dict):
        edges = {value[key] for key in ("longest_edge", "height", "width") if value.get(key)}
        if not edges and default:
            return default
        value = edges.pop() if len(edges) == 1 else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnsupportedImages(f"{name} {value!r} is not supported")
    return value
