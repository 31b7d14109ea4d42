"""Files of images for tests: from Pillow where it can write them, by hand where it would refuse to."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image


def encode(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    """Return the file of an image."""
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def noise(width: int, height: int, *, seed: int = 0, channels: int = 3) -> Image.Image:
    """Return an image in which every pixel differs, RGB or RGBA."""
    shape = (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def photo(width: int, height: int) -> Image.Image:
    """Return a smooth image with an edge, as photographs have them."""
    return _photo(width, height).copy()


@cache
def _photo(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    channels = [np.sin(x / 37) * 60 + y * 100 / height, np.cos(y / 23) * 60 + x * 100 / width, (x + y) % 97]
    array = np.stack(channels, -1) + 64
    array[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 20)
    return Image.fromarray(array.clip(0, 255).astype(np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    *,
    bit_depth: int = 8,
    colour: int = 0,
    rows: bytes | None = None,
    before: tuple[bytes, ...] = (),
) -> bytes:
    """Return a PNG by hand: any size in its header, `rows` (each begins with its filter) as its pixels.

    before: chunks between header and pixels.
    """
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 64 if rows is None else rows, 9))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + pixels + chunk(b"IEND", b"")


def exif(orientation: int, *, order: str = ">") -> bytes:
    """Return an EXIF block, without its `Exif` prefix, that holds nothing but an orientation."""
    head = b"MM\0*" if order == ">" else b"II*\0"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return head + struct.pack(order + "IH", 8, 1) + entry + struct.pack(order + "I", 0)
