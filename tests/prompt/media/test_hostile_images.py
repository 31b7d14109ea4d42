"""Files that are no images, broken ones, and ones made to take the server down."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from PIL import Image

from mezzo.prompt.media.image_headers import ImageLimits, read_orientation
from mezzo.prompt.media.images import ImageProcessor
from mezzo.prompt.parts import ImagePart
from mezzo.protocol.errors import InvalidFile

from .pictures import chunk, encode, noise, photo, png

SUPPORTED = "; send PNG, JPEG, WEBP or GIF"
SOLID = Image.new("RGB", (64, 48), (1, 2, 3))


def refusal(data: bytes, **limits: int) -> str:
    """Return what a client is told of a file that must be refused."""
    processor = ImageProcessor(patch_size=14, longest_edge=1540, limits=ImageLimits(**limits))
    with pytest.raises(InvalidFile) as caught:
        processor.prepare(ImagePart(data, "here"))
    assert caught.value.message.startswith("here: ")
    assert caught.value.param == "messages"
    return caught.value.message.removeprefix("here: ")


def accepted(data: bytes) -> tuple[int, ...]:
    processor = ImageProcessor(patch_size=1, longest_edge=1540)
    return processor.prepare(ImagePart(data, "here")).pixels.shape


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (encode(SOLID, "BMP"), "BMP is not supported"),
        (encode(SOLID, "TIFF"), "TIFF is not supported"),
        (encode(SOLID, "TIFF", big_tiff=False)[:2].replace(b"II", b"MM") + b"\0*", "TIFF is not supported"),
        (encode(SOLID, "ICO"), "icon is not supported"),
        (
            encode(SOLID, "JPEG2000") if "JPEG2000" in Image.SAVE else b"\xff\x4f\xff\x51",
            "JPEG 2000 is not supported",
        ),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is not supported"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- c -->\n<svg/>", "SVG is not supported"),
        (b"<!DOCTYPE html><html><script>", "HTML is not supported"),
        (b"<?xml version='1.0'?><rss/>", "XML is not supported"),
        (b'{"error": "not found"}', "JSON is not supported"),
        (b"%PDF-1.7", "PDF is not supported"),
        (b"\0\0\0\x20ftypavif\0\0", "AVIF or HEIC is not supported"),
        (b"\0\0\0\x20ftypheic\0\0", "AVIF or HEIC is not supported"),
        (b"\0\0\0\x20ftypisom\0\0", "video is not supported"),
        (b"\xff\x0a\0\0", "JPEG XL is not supported"),
        (b"8BPS\0\1", "PSD is not supported"),
        (b"PK\3\4", "ZIP is not supported"),
        (b"\x1f\x8b\x08", "gzip is not supported"),
        (b"P6 1 1 255 abc", "the file is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "the file is not an image"),
        (b"\0" * 100, "the file is not an image"),
        (b"RIFF\0\0\0\0WAVE", "the file is not an image"),
    ],
)
def test_other_formats_are_refused_by_name(data: bytes, found: str) -> None:
    assert refusal(data) == found + SUPPORTED


def test_an_empty_file() -> None:
    assert refusal(b"") == "the image is empty"


def test_more_bytes_than_allowed() -> None:
    data = encode(noise(32, 32))
    assert refusal(data, max_bytes=len(data) - 1) == f"the image is larger than {len(data) - 1} bytes"


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF"])
def test_every_cut_of_a_file_is_refused_or_read_never_a_fault(format_: str) -> None:
    data = encode(noise(24, 16), format_, **({"lossless": True} if format_ == "WEBP" else {}))
    for length in range(len(data) * 3 // 4):
        assert refusal(data[:length])


@pytest.mark.parametrize(("format_", "step"), [("PNG", 3), ("JPEG", 7), ("WEBP", 7), ("GIF", 3)])
def test_damaged_files_are_refused_or_read_never_a_fault(format_: str, step: int) -> None:
    data = encode(photo(32, 24), format_)
    for position in range(0, min(len(data), 1200), step):
        for value in (0, 0xFF, data[position] ^ 0x10):
            damaged = data[:position] + bytes([value]) + data[position + 1 :]
            try:
                shape = accepted(damaged)
            except InvalidFile:
                continue
            assert shape[2] == 3


def test_truncated_files_say_so() -> None:
    for format_ in ("PNG", "JPEG", "WEBP"):
        data = encode(noise(64, 64), format_)
        assert refusal(data[: len(data) // 2]) == "the image is truncated"


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_no_pixels(size: tuple[int, int]) -> None:
    assert refusal(png(*size)) == "the image has no pixels"


def jpeg_sized(width: int, height: int) -> bytes:
    """Return a JPEG whose header claims another size."""
    data = encode(SOLID, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def gif_sized(width: int, height: int) -> bytes:
    data = encode(SOLID, "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def gif_frame(left: int, top: int, width: int, height: int) -> bytes:
    data = encode(Image.new("P", (4, 4)), "GIF")
    at = data.index(b"\x2c") + 1
    return data[:at] + struct.pack("<HHHH", left, top, width, height) + data[at + 8 :]


def webp_sized(width: int, height: int) -> bytes:
    data = encode(Image.new("RGBA", (16, 16), (1, 2, 3, 4)), "WEBP", exif=b"Exif\0\0II*\0")
    assert data[12:16] == b"VP8X"
    return data[:24] + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + data[30:]


@pytest.mark.parametrize("make", [png, jpeg_sized, gif_sized, webp_sized])
@pytest.mark.parametrize("size", [(10_001, 80), (80, 10_001), (16_384, 16_384)])
def test_edges_over_the_limit_are_refused_from_the_header(make: Any, size: tuple[int, int]) -> None:
    tracemalloc.start()
    try:
        words = refusal(make(*size))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert words == f"the image has {size[0]}x{size[1]} pixels, the maximum is 10000x10000"
    assert peak < 1 << 20


def test_a_frame_larger_than_its_screen_counts() -> None:
    assert "60000x4" in refusal(gif_frame(0, 0, 60_000, 4))
    assert "65535x4" in refusal(gif_frame(65_531, 0, 4, 4))


def test_as_many_pixels_as_allowed_and_no_more() -> None:
    data = encode(Image.new("1", (400, 300)))
    assert (
        refusal(data, max_pixels=119_999)
        == "the image has 400x300 pixels, the maximum is 119999 pixels in all"
    )
    assert accepted(data) == (300, 400, 3)


def test_a_webp_may_have_fewer_pixels_since_its_decoder_takes_more_memory() -> None:
    data = encode(Image.new("RGB", (400, 300)), "WEBP")
    assert refusal(data, max_pixels=191_999).endswith("the maximum is 119999 pixels in all")
    assert accepted(data) == (300, 400, 3)


def test_an_image_above_pillows_own_limit_is_read_without_a_warning() -> None:
    # 90 million pixels are over Image.MAX_IMAGE_PIXELS, which other code in the process may rely on.
    before = Image.MAX_IMAGE_PIXELS
    row = b"\0" + bytes(10_000 // 8)
    assert accepted(png(10_000, 9_000, bit_depth=1, rows=row * 9_000)) == (1386, 1540, 3)
    assert before is not None
    assert before == Image.MAX_IMAGE_PIXELS < 90_000_000


def test_pixels_that_inflate_beyond_the_size_are_not_read() -> None:
    bomb = png(8, 8, rows=b"\0" * (64 << 20))
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        assert accepted(bomb) == (8, 8, 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(
    "hidden",
    [
        chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(32 << 20))),
        chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(32 << 20))),
        chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(32 << 20))),
        chunk(b"tEXt", b"k\0" + bytes(4 << 20)),
        chunk(b"acTL", struct.pack(">II", 0, 0)) * 2,
        chunk(b"acTL", b"x"),
        chunk(b"eXIf", b"MM\0*" + b"\xff" * 60_000),
    ],
    ids=["zTXt", "iTXt", "iCCP", "tEXt", "acTL twice", "acTL short", "eXIf"],
)
def test_what_is_not_pixels_is_neither_unpacked_nor_warned_about(hidden: bytes) -> None:
    start = time.process_time()
    assert accepted(png(8, 8, rows=b"\0" * 72, before=(hidden,))) == (8, 8, 3)
    assert time.process_time() - start < 0.5


def test_pieces_without_end_are_refused_quickly() -> None:
    start = time.process_time()
    refusal(png(8, 8, rows=b"\0" * 72, before=(chunk(b"tEXt", b"k\0") * 1_000_000,)))
    refusal(b"\xff\xd8" + b"\xff\xe1\0\2" * 4_000_000)
    refusal(b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xfe\0" * 5_000_000)
    refusal(b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xfe" + b"\1a" * 5_000_000)
    assert time.process_time() - start < 2


def test_jpeg_with_passes_without_end() -> None:
    data = encode(noise(64, 64), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    scan = data[at:-2]
    assert refusal(data[:-2] + scan * 200 + b"\xff\xd9") == "the image has more than 100 scans"


def test_jpeg_with_two_sizes() -> None:
    data = encode(SOLID, "JPEG")
    at = data.index(b"\xff\xc0")
    frame = data[at : at + 19]
    assert refusal(data[:at] + frame + data[at:]) == "the image is not a valid JPEG file"


def test_jpeg_with_odd_exif_gives_no_warning() -> None:
    for block in (
        b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x1a\0\5" * 40,
        b"II*\0\x08\0\0\0\1\0\x12\1\3\0\xff\xff\xff\xff",
    ):
        assert accepted(encode(SOLID, "JPEG", exif=b"Exif\0\0" + block))[2] == 3


@pytest.mark.parametrize("length", [0, 4, 8, 10, 20, 22])
def test_orientation_of_cut_exif(length: int) -> None:
    block = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0"
    assert read_orientation(block) == 6
    assert read_orientation(block[:length]) == (6 if length == 22 else 1)


def test_gif_without_a_frame() -> None:
    assert refusal(b"GIF89a\1\0\1\0\0\0\0;") == "the image is not a valid GIF file"


def test_polyglots_are_what_their_first_bytes_say() -> None:
    assert accepted(encode(SOLID) + b"<script>alert(1)</script>") == (48, 64, 3)
    assert refusal(b"<html>" + encode(SOLID)) == "HTML is not supported" + SUPPORTED
