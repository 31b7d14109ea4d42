"""The files that a line of training data names: inside the line, or beside the data file. Never on the web."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from mezzo.prompt.media.attachments import AttachmentLimits, AttachmentLoader
from mezzo.prompt.media.fetch import Fetcher, FetchError
from mezzo.prompt.media.urls import is_data_uri
from mezzo.prompt.parts import NO_ATTACHMENTS, Attachments
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.content import DocumentURLChunk, ImageURLChunk

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:")
_SHOWN = 100


class LocalFiles(Fetcher):
    """Gets files by `data:` URI or by a path relative to `folder`, and below it. Links there are followed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(enabled=False)
        self._folder = folder

    async def fetch(self, url: str, *, max_bytes: int) -> bytes:
        """Return the file. Raises: FetchError, also for a URL of the web and a path that leads out of the folder."""
        if is_data_uri(url):
            return await super().fetch(url, max_bytes=max_bytes)
        shown = url if len(url) <= _SHOWN else url[:_SHOWN] + "…"
        if _SCHEME.match(url):
            raise FetchError(
                f"{shown} is not fetched: training reads no URLs; save the file beside the data and give its path, "
                "or write it as a data: URI"
            )
        if Path(url).is_absolute() or ".." in Path(url).parts:
            raise FetchError(f"{shown} is not a path below the folder of the data file")
        try:
            return await asyncio.to_thread(_read, self._folder / url, max_bytes)
        except (OSError, ValueError) as error:  # ValueError: a zero byte
            raise FetchError(
                f"{shown} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error


def _read(path: Path, max_bytes: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise FetchError(f"{path.name} is larger than {max_bytes} bytes")
    return data


def load_attachments(request: ChatCompletionRequest, folder: Path) -> Attachments:
    """Return what a request's image and document chunks stand for, read as serving reads them, within its limits.

    Raises: DomainError naming the chunk. Not to be called from an event loop.
    """
    chunks = [chunk for m in request.messages if isinstance(m.content, list) for chunk in m.content]
    if not any(isinstance(chunk, ImageURLChunk | DocumentURLChunk) for chunk in chunks):
        return NO_ATTACHMENTS
    loader = AttachmentLoader(AttachmentLimits(), LocalFiles(folder))
    return asyncio.run(loader.load(request))


def of_first_messages(attachments: Attachments, num_messages: int) -> Attachments:
    """Return the attachments of a conversation's beginning."""
    return Attachments(
        {place: parts for place, parts in attachments.by_position.items() if place[0] < num_messages}
    )
