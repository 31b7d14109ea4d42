"""What a file says of itself before anything is decoded: format, size, orientation, and the parts worth decoding.

The format is read from the content, never from a name or a declared type. Only PNG, JPEG, WEBP and GIF are known.
Headers are walked here, in plain Python, because Pillow would inflate text and colour profiles, warn, and take
some sizes from elsewhere, all before we could judge them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Format = Literal["PNG", "JPEG", "WEBP", "GIF"]

_MAX_CHUNKS = 20_000  # of any format: encoders write some dozens, and each is walked in plain Python
_MAX_JPEG_SCANS = 100  # encoders use about ten; each costs a pass over the whole image
_PNG_ESSENTIAL = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# JFIF and Adobe say how colours are stored; other application segments and comments are not for the decoder.
_JPEG_SKIPPED = (frozenset(range(0xE1, 0xF0)) | {0xFE}) - {0xEE}
_OTHER_FORMATS = (
    ("BMP", re.compile(rb"BM")),
    ("TIFF", re.compile(rb"II\*\0|MM\0\*")),
    ("PDF", re.compile(rb"%PDF-")),
    ("AVIF or HEIC", re.compile(rb"....ftyp(avif|avis|heic|heix|mif1|msf1)", re.DOTALL)),
    ("video", re.compile(rb"....ftyp|\x1aE\xdf\xa3", re.DOTALL)),
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")),
    ("JPEG 2000", re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ")),
    ("icon", re.compile(rb"\0\0[\x01\x02]\0")),
    ("PSD", re.compile(rb"8BPS")),
    ("ZIP", re.compile(rb"PK\x03\x04")),
    ("gzip", re.compile(rb"\x1f\x8b")),
    (
        "SVG",
        re.compile(
            rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype\s+svg|<svg)", re.I | re.S
        ),
    ),
    ("HTML", re.compile(rb"(\xef\xbb\xbf)?\s*(<!doctype\s+html|<html|<head|<body)", re.I)),
    ("XML", re.compile(rb"(\xef\xbb\xbf)?\s*<\?xml")),
    ("JSON", re.compile(rb"\s*[{\[]")),
)


class ImageError(ValueError):
    """A file that is no image we read, is broken, or is over a limit; the message is for the client."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image's file may be.

    max_bytes    of the file
    max_edge     pixels, either edge
    max_pixels   of the whole image; decoding takes up to 10 bytes of memory for each, of WEBP 16, which may therefore
                 have fewer
    """

    max_bytes: int = 20 * 1024 * 1024
    max_edge: int = 10_000
    max_pixels: int = 100_000_000


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says of itself.

    width, height   pixels as stored
    orientation     of EXIF, 1 to 8: how the stored pixels have to be turned to be upright
    """

    format: Format
    width: int
    height: int
    orientation: int = 1


def read_header(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Read and judge a file's header without decoding any pixel.

    Raises: ImageError for a file that is empty, too large, of another format, broken at its head, or cut off
    where the format's own lengths show it.
    """
    if not data:
        raise ImageError("the image is empty")
    if len(data) > limits.max_bytes:
        raise ImageError(f"the image is larger than {limits.max_bytes} bytes")
    try:
        header = _READERS[sniff(data)](data)
    except IndexError:
        raise _truncated() from None
    if header.width == 0 or header.height == 0:
        raise ImageError("the image has no pixels")
    size = f"{header.width}x{header.height} pixels"
    if max(header.width, header.height) > limits.max_edge:
        raise ImageError(f"the image has {size}, the maximum is {limits.max_edge}x{limits.max_edge}")
    max_pixels = limits.max_pixels * 10 // 16 if header.format == "WEBP" else limits.max_pixels
    if header.width * header.height > max_pixels:
        raise ImageError(f"the image has {size}, the maximum is {max_pixels} pixels in all")
    return header


def sniff(data: bytes) -> Format:
    """Return the format of a file by its first bytes. Raises: ImageError, naming what it is if recognisable."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    head = data[:1024]
    found = next((name for name, pattern in _OTHER_FORMATS if pattern.match(head)), None)
    what = "the file is not an image" if found is None else f"{found} is not supported"
    raise ImageError(f"{what}; send PNG, JPEG, WEBP or GIF")


def essential(data: bytes, format_: Format) -> bytes:
    """Return a file without what decoding its pixels does not need.

    PNG loses text, colour profiles and animation, JPEG its EXIF and comments: nothing in there is inflated,
    parsed or warned about. The other formats are returned as they are.
    """
    view = memoryview(data)
    if format_ == "PNG":
        # A transparent colour of 16 bits would be compared with pixels that have been brought to 8.
        wanted = _PNG_ESSENTIAL - {b"tRNS"} if data[24] == 16 else _PNG_ESSENTIAL
        kept = [view[start:end] for kind, start, end in _png_chunks(data) if kind in wanted]
        return b"".join([data[:8], *kept])
    if format_ == "JPEG":
        segments = list(_jpeg_segments(data))
        kept = [view[start:end] for marker, start, end in segments if marker not in _JPEG_SKIPPED]
        return b"".join([data[:2], *kept, view[segments[-1][2] :]])
    return data


def _truncated() -> ImageError:
    return ImageError("the image is truncated")


def _broken(format_: Format) -> ImageError:
    return ImageError(f"the image is not a valid {format_} file")


def _big(data: bytes, start: int, length: int) -> int:
    return int.from_bytes(_take(data, start, length), "big")


def _little(data: bytes, start: int, length: int) -> int:
    return int.from_bytes(_take(data, start, length), "little")


def _take(data: bytes, start: int, length: int) -> bytes:
    taken = data[start : start + length]
    if len(taken) < length:
        raise IndexError
    return taken


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each chunk, up to IEND. Raises: ImageError, IndexError if one is cut off."""
    start = 8
    for _ in range(_MAX_CHUNKS):
        kind = _take(data, start + 4, 4)
        end = start + 12 + _big(data, start, 4)
        if end > len(data):
            raise IndexError
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end
    raise _broken("PNG")


def _read_png(data: bytes) -> ImageHeader:
    if data[12:16] != b"IHDR" or _big(data, 8, 4) != 13:
        raise _truncated() if len(data) < 33 else _broken("PNG")
    orientation = 1
    for kind, start, end in _png_chunks(data):
        if kind == b"eXIf":
            orientation = read_orientation(data[start + 8 : end - 4])
    return ImageHeader("PNG", _big(data, 16, 4), _big(data, 20, 4), orientation)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment, up to and with the first start of scan."""
    start = 2
    for _ in range(_MAX_CHUNKS):
        if data[start] != 0xFF:
            raise _broken("JPEG")
        at = start + 1
        while data[at] == 0xFF:  # fill bytes
            at += 1
        marker = data[at]
        if marker == 0xD9:
            raise _broken("JPEG")
        end = at + 1 if marker == 0x01 or 0xD0 <= marker <= 0xD8 else at + 1 + _big(data, at + 1, 2)
        if end > len(data):
            raise IndexError
        yield marker, at - 1, end
        if marker == 0xDA:
            return
        start = end
    raise _broken("JPEG")


def _read_jpeg(data: bytes) -> ImageHeader:
    size, orientation, end = None, 1, 0
    for marker, start, end in _jpeg_segments(data):
        if marker in _JPEG_FRAMES:
            if size is not None:
                raise _broken("JPEG")
            size = _big(data, start + 7, 2), _big(data, start + 5, 2)
        elif marker == 0xE1 and data[start + 4 : start + 10] == b"Exif\0\0":
            orientation = read_orientation(data[start + 10 : end])
    if size is None:
        raise _broken("JPEG")
    # In compressed data 0xFF is followed by 0x00 or a restart, so these two bytes are markers there.
    if 1 + data.count(b"\xff\xda", end) > _MAX_JPEG_SCANS:
        raise ImageError(f"the image has more than {_MAX_JPEG_SCANS} scans")
    return ImageHeader("JPEG", *size, orientation)


def _read_webp(data: bytes) -> ImageHeader:
    if 8 + _little(data, 4, 4) > len(data):
        raise _truncated()
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return ImageHeader("WEBP", _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF)
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = _little(data, 21, 4)
        return ImageHeader("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        exif = _webp_exif(data) if data[20] & 8 else b""
        return ImageHeader("WEBP", _little(data, 24, 3) + 1, _little(data, 27, 3) + 1, read_orientation(exif))
    raise _broken("WEBP")


def _webp_exif(data: bytes) -> bytes:
    start = 12
    for _ in range(_MAX_CHUNKS):
        if start + 8 > len(data):
            break
        length = _little(data, start + 4, 4)
        if data[start : start + 4] == b"EXIF":
            return data[start + 8 : start + 8 + length].removeprefix(b"Exif\0\0")
        start += 8 + length + length % 2
    return b""


def _read_gif(data: bytes) -> ImageHeader:
    """Read the size of the screen, enlarged where the first frame reaches beyond it, as Pillow does."""
    width, height = _little(data, 6, 2), _little(data, 8, 2)
    start = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    for _ in range(_MAX_CHUNKS):
        if data[start] == 0x2C:
            left, top, frame_width, frame_height = (_little(data, start + 1 + 2 * i, 2) for i in range(4))
            return ImageHeader("GIF", max(width, left + frame_width), max(height, top + frame_height))
        if data[start] != 0x21:
            break
        start += 2
        for _ in range(_MAX_CHUNKS):
            start += 1 + data[start]
            if data[start] == 0:
                break
        start += 1
    raise _broken("GIF")


def read_orientation(exif: bytes) -> int:
    """Return the orientation that an EXIF block (from its TIFF header on) names; 1 if it names none that is valid.

    Pillow reads it too, but parses all of EXIF for it and warns about whatever is odd there.
    """
    order: Literal["big", "little"]
    if exif[:4] == b"MM\0*":
        order = "big"
    elif exif[:4] == b"II*\0":
        order = "little"
    else:
        return 1

    def number(start: int, length: int) -> int:
        return int.from_bytes(exif[start : start + length], order)

    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if entry + 12 > len(exif):
            break
        # Tag 0x0112, of type SHORT.
        if number(entry, 2) == 0x0112 and number(entry + 2, 2) == 3:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


_READERS = {"PNG": _read_png, "JPEG": _read_jpeg, "WEBP": _read_webp, "GIF": _read_gif}
