"""Reads one PDF in a process of its own, which may crash, hang or run out of memory without anybody noticing.

    python -I -B pdf_worker.py '{"max_pages": 1000, ...}' < document.pdf

Run as a file and importing nothing of mezzo, so that it starts in a tenth of a second and holds none of the
server's secrets. Standard output is a line of JSON for each page, each followed by as many bytes of a PNG as it
says, then a line that ends it: {"done": true} or {"error": ...}. See `documents.py` for the other side.
"""

from __future__ import annotations

import io
import json
import math
import re
import sys
from dataclasses import dataclass
from typing import Any, BinaryIO

_POINTS_PER_INCH = 72
# A page is not drawn finer than scanners scan, nor is one believed to be larger than any paper.
_MAX_DPI = 200
_MAX_PAGE_POINTS = 50_000
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]")


@dataclass(frozen=True)
class Task:
    """What to do, and how much of it.

    longest_edge   pixels, of drawn pages
    memory_bytes   address space of this process
    cpu_s          after which the kernel ends it
    """

    max_pages: int
    max_page_images: int
    max_characters: int
    longest_edge: int
    memory_bytes: int
    cpu_s: int


class Refused(Exception):
    """The document will not be read; the name of the reason, with what belongs to it."""

    def __init__(self, error: str, **details: int) -> None:
        super().__init__(error)
        self.message = {"error": error, **details}


def main(argument: str, source: BinaryIO, sink: BinaryIO) -> None:
    """Read a document from `source` and write its pages to `sink`."""
    task = Task(**json.loads(argument))
    _limit(task)
    try:
        _read(source.read(), task, sink)
        _write(sink, {"done": True})
    except Refused as refused:
        _write(sink, refused.message)
    except MemoryError:
        _write(sink, {"error": "memory"})
    sink.flush()


def _limit(task: Task) -> None:
    try:
        import resource  # noqa: PLC0415  not on Windows, where only the time limit of the parent holds
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (task.memory_bytes, task.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (task.cpu_s, task.cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _read(data: bytes, task: Task, sink: BinaryIO) -> None:
    import pypdfium2  # noqa: PLC0415  after the limits are set

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        # FPDF_ERR_PASSWORD
        raise Refused("encrypted" if getattr(error, "err_code", None) == 4 else "invalid") from None
    document.init_forms()  # before any page is loaded: else what was filled in is not drawn
    num_pages = len(document)
    if num_pages == 0:
        raise Refused("invalid")
    if num_pages > task.max_pages:
        raise Refused("pages", pages=num_pages)
    num_characters = num_images = 0
    for number in range(num_pages):
        try:
            page = _flattened(document, number)
            text = _text(page)
        except pypdfium2.PdfiumError:
            raise Refused("page", page=number + 1) from None
        num_characters += len(text)
        if num_characters > task.max_characters:
            raise Refused("characters")
        image = b""
        if not text and _shows_something(page):
            num_images += 1
            if num_images > task.max_page_images:
                raise Refused("images")
            image = _draw(page, number, task)
        page.close()
        _write(sink, {"text": text, "image": len(image)}, image)


def _flattened(document: Any, number: int) -> Any:
    """Return a page with its form fields and annotations made a part of it, as a viewer shows them."""
    from pypdfium2 import raw  # noqa: PLC0415  as above

    page = document[number]
    if raw.FPDFPage_GetAnnotCount(page) <= 0:
        return page
    raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
    page.close()
    return document[number]


def _text(page: Any) -> str:
    text_page = page.get_textpage()
    text = text_page.get_text_bounded()
    text_page.close()
    # Control characters stand for what pdfium could not read, or for hyphens at the end of a line.
    text = _NOT_TEXT.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    # Half of a surrogate pair is no text, and no JSON either.
    return str(text.encode("utf-8", "replace").decode("utf-8")).strip()


def _shows_something(page: Any) -> bool:
    return next(iter(page.get_objects(max_depth=1)), None) is not None


def _draw(page: Any, number: int, task: Task) -> bytes:
    width, height = page.get_size()
    if not all(math.isfinite(edge) and 0 < edge <= _MAX_PAGE_POINTS for edge in (width, height)):
        raise Refused("size", page=number + 1)
    # pdfium rounds edges up: half a pixel less, so that none is over.
    scale = min(_MAX_DPI / _POINTS_PER_INCH, (task.longest_edge - 0.5) / max(width, height))
    bitmap = page.render(scale=scale)
    file = io.BytesIO()
    bitmap.to_pil().convert("RGB").save(file, "PNG", compress_level=1)
    bitmap.close()
    return file.getvalue()


def _write(sink: BinaryIO, message: dict[str, object], data: bytes = b"") -> None:
    sink.write(json.dumps(message).encode() + b"\n" + data)


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
