"""From the bytes of a document to parts that a model reads: text, and images of pages that have none.

A document stands between two lines that name it, and each page of a PDF after a line with its number:

    [Document: report.pdf, 2 pages]

    [Page 1]
    Text in the order in which the file has it.

    [Page 2]
    <image>
    [End of document: report.pdf]

The lines are for the model, not a border that holds: a document can write such lines too. Control tokens in it
stay text, as in everything a user sends.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import re
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mezzo.prompt.media import pdf_worker
from mezzo.prompt.parts import ImagePart, Part, TextPart
from mezzo.protocol.errors import DomainError, InvalidDocument, TooManyPages

_MAX_NAME_LENGTH = 120
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\[\]<>|]+")
# What text does not have: control characters other than tab, line feed, form feed, carriage return and escape.
_BINARY = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Readers accept junk before the signature, and some files need them to.
_SIGNATURE_WITHIN = 1024
_READ_BYTES = 1 << 16
_WORDS_OF_MEMORY = "The document takes too much memory to read."
# How pdfium ends when it gets no memory, and how the kernel ends what takes too much.
_OUT_OF_MEMORY = frozenset(
    {-signal.SIGABRT, 128 + signal.SIGABRT, *([-signal.SIGKILL] if hasattr(signal, "SIGKILL") else [])}
)
# Of the worker's environment nothing else is passed on: no keys, no paths of ours.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLimits:
    """How much a document may be.

    max_bytes          of the file
    max_pages          of one PDF
    max_page_images    pages without text that are drawn, in one request
    max_characters     of text, in one request
    longest_edge       pixels, of drawn pages
    timeout_s          for reading one PDF
    memory_bytes       address space of the process that reads it
    max_output_bytes   of what that process may answer
    """

    max_bytes: int = 50 * 1024 * 1024
    max_pages: int = 1000
    max_page_images: int = 16
    max_characters: int = 2_000_000
    longest_edge: int = 1540
    timeout_s: float = 30.0
    memory_bytes: int = 1536 * 1024 * 1024
    max_output_bytes: int = 128 * 1024 * 1024


class DocumentReader:
    """Reads documents. One per server; used from one event loop.

    max_concurrent   PDFs that are read at a time, each by a process of its own
    worker           the program that reads them
    """

    def __init__(
        self, limits: DocumentLimits, *, max_concurrent: int = 2, worker: Path = Path(pdf_worker.__file__)
    ) -> None:
        self.limits = limits
        self._slots = asyncio.Semaphore(max_concurrent)
        self._worker = worker

    async def read(self, data: bytes, *, name: str | None, where: str) -> tuple[Part, ...]:
        """Return the parts that stand for a document: PDF, or text in UTF-8 or, with a byte order mark, UTF-16.

        name    as the client calls it; cleaned here. where: the chunk, for errors.
        Cancelling it ends the process that reads. Raises: InvalidDocument, TooManyPages.
        """
        title = clean_name(name)
        if not data:
            raise _invalid(where, "The document is empty.")
        if len(data) > self.limits.max_bytes:
            raise _invalid(where, f"The document is larger than {self.limits.max_bytes} bytes.")
        if b"%PDF-" not in data[:_SIGNATURE_WITHIN]:
            text = await asyncio.to_thread(_read_text, data, where)
            if len(text) > self.limits.max_characters:
                raise self._too_long(where)
            return (TextPart(f"[Document: {title}]\n\n{text}\n[End of document: {title}]"),)
        async with self._slots:
            output = await self._run(data, where)
        return await asyncio.to_thread(self._parts, output, title, where)

    async def _run(self, data: bytes, where: str) -> bytes:
        """Return what the worker says of a PDF."""
        limits = self.limits
        task = pdf_worker.Task(
            limits.max_pages, limits.max_page_images, limits.max_characters, limits.longest_edge,
            limits.memory_bytes, max(1, round(limits.timeout_s)),
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-B", str(self._worker), json.dumps(asdict(task)),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,  # Ctrl-C is for the server, which then ends this one
        )  # fmt: skip
        try:
            async with asyncio.timeout(limits.timeout_s):
                output = await _exchange(process, data, limits.max_output_bytes)
                status = await process.wait() if output is not None else None
        except TimeoutError:
            raise _invalid(where, "The document takes too long to read.") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await asyncio.shield(_wait_for_end(process))
        if status in _OUT_OF_MEMORY:
            raise _invalid(where, _WORDS_OF_MEMORY)
        if status != 0 or output is None:
            raise _broken(where)
        return output

    def _parts(self, output: bytes, title: str, where: str) -> tuple[Part, ...]:
        """Read the worker's answer. It read a stranger's file, so it is believed no more than that."""
        try:
            pages, end = _read_messages(output)
            refusal = self._refusal(end, where) if "error" in end else None
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise _broken(where) from None
        if refusal is not None:
            raise refusal
        count = f"{len(pages)} page{'' if len(pages) == 1 else 's'}"
        parts: list[Part] = [TextPart(f"[Document: {title}, {count}]\n")]
        for number, (text, image) in enumerate(pages, 1):
            parts.append(TextPart(f"\n[Page {number}]\n{text}\n" if text else f"\n[Page {number}]\n"))
            if image:
                parts.append(ImagePart(image, where))
        parts.append(TextPart(f"\n[End of document: {title}]"))
        return tuple(_join_text(parts))

    def _refusal(self, message: dict[str, Any], where: str) -> DomainError:
        error, limits = message["error"], self.limits
        if error == "pages":
            return TooManyPages(int(message["pages"]), limits.max_pages, where=where)
        if error == "characters":
            return self._too_long(where)
        page = int(message.get("page", 0))
        words = {
            "encrypted": "Document is encrypted.",
            "images": f"The document has more than {limits.max_page_images} pages without text.",
            "memory": _WORDS_OF_MEMORY,
            "size": f"Page {page} of the document has an invalid size.",
            "page": f"Page {page} of the document cannot be read.",
        }
        return _invalid(where, words[error]) if error in words else _broken(where)

    def _too_long(self, where: str) -> DomainError:
        return _invalid(where, f"The document has more than {self.limits.max_characters} characters.")


def clean_name(name: str | None) -> str:
    """Return a document's name as it stands in prompts: one line without brackets, at most 120 characters."""
    cleaned = " ".join(_NOT_IN_NAMES.sub(" ", name or "").split())[:_MAX_NAME_LENGTH].strip()
    return cleaned or "document"


async def _wait_for_end(process: asyncio.subprocess.Process) -> None:
    """Wait for a process that was killed. What it wrote is read to its end: else the event loop never sees it end."""
    assert process.stdout is not None
    while await process.stdout.read(_READ_BYTES):
        pass
    await process.wait()


async def _exchange(process: asyncio.subprocess.Process, data: bytes, max_bytes: int) -> bytes | None:
    """Feed a process and return its output, None if that is too much."""
    assert process.stdin is not None
    assert process.stdout is not None
    feeding = asyncio.ensure_future(_feed(process.stdin, data))
    try:
        output = bytearray()
        while piece := await process.stdout.read(_READ_BYTES):
            output += piece
            if len(output) > max_bytes:
                return None
        return bytes(output)
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])


async def _feed(stdin: asyncio.StreamWriter, data: bytes) -> None:
    # A worker that has heard enough, or crashed, shows in what it answered.
    with contextlib.suppress(ConnectionError):
        stdin.write(data)
        await stdin.drain()
        stdin.close()
        await stdin.wait_closed()


def _read_messages(output: bytes) -> tuple[list[tuple[str, bytes]], dict[str, Any]]:
    """Return the pages and the line that ends them. Raises: several kinds of errors if it is malformed."""
    pages: list[tuple[str, bytes]] = []
    start = 0
    while True:
        end = output.index(b"\n", start)
        message = json.loads(output[start:end])
        if not isinstance(message, dict):
            raise TypeError("not an object")
        if "done" in message or "error" in message:
            return pages, message
        start = end + 1 + int(message["image"])
        if not isinstance(message["text"], str) or not end < start <= len(output):
            raise ValueError("malformed page")
        message["text"].encode()  # half of a surrogate pair is no text
        pages.append((message["text"], output[end + 1 : start]))


def _read_text(data: bytes, where: str) -> str:
    mark, encoding = next(((m, e) for m, e in _BYTE_ORDER_MARKS if data.startswith(m)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if _BINARY.search(text):
        raise _invalid(where, "Document is not a valid PDF, nor is it text in UTF-8 or UTF-16.")
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"


def _join_text(parts: list[Part]) -> list[Part]:
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, TextPart) and isinstance(last, TextPart):
            joined[-1] = TextPart(last.text + part.text)
        else:
            joined.append(part)
    return joined


def _invalid(where: str, words: str) -> InvalidDocument:
    return InvalidDocument(f"{where}: {words}", param="messages")


def _broken(where: str) -> InvalidDocument:
    return _invalid(where, "Document is not a valid PDF.")
