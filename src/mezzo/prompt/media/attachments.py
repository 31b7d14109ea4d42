"""Gets what a request's image and document chunks stand for, before the request is admitted.

Each failure is a 4xx that names message and chunk. Decoding pixels is left to the prompt encoder.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from mezzo.prompt.media.documents import DocumentLimits, DocumentReader
from mezzo.prompt.media.fetch import Fetcher, FetchError
from mezzo.prompt.media.image_headers import ImageLimits
from mezzo.prompt.media.images import check_header
from mezzo.prompt.media.urls import is_data_uri
from mezzo.prompt.parts import NO_ATTACHMENTS, Attachments, ImagePart, Part, TextPart
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.content import DocumentURLChunk, ImageURL, ImageURLChunk
from mezzo.protocol.errors import InvalidArguments, InvalidDocument, InvalidFile, ServiceUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentLimits:
    """How much may come with one request.

    max_images               image chunks; drawn pages of documents are counted apart
    max_documents            document chunks
    max_request_bytes        of all files together; noticed when a file has arrived, so that the files that are
                             fetched at the same time may be held on top
    max_concurrent_fetches   of one request
    max_concurrent_requests  that fetch files at a time, in the whole server; others wait, for max_wait_s at most
    images, documents        of each file; the documents' characters and drawn pages count for the whole request
    """

    max_images: int = 8
    max_documents: int = 8
    max_request_bytes: int = 100 * 1024 * 1024
    max_concurrent_fetches: int = 4
    max_concurrent_requests: int = 8
    max_wait_s: float = 10.0
    images: ImageLimits = field(default_factory=ImageLimits)
    documents: DocumentLimits = field(default_factory=DocumentLimits)


@dataclass(frozen=True, slots=True)
class _Place:
    """A chunk to load, and where it stands."""

    message: int
    index: int
    chunk: ImageURLChunk | DocumentURLChunk

    @property
    def where(self) -> str:
        return f"messages[{self.message}].content[{self.index}]"

    @property
    def url(self) -> str:
        if isinstance(self.chunk, DocumentURLChunk):
            return self.chunk.document_url
        image_url = self.chunk.image_url
        return image_url.url if isinstance(image_url, ImageURL) else image_url


class AttachmentLoader:
    """Loads attachments. One per server; used from one event loop."""

    def __init__(
        self, limits: AttachmentLimits, fetcher: Fetcher, *, documents: DocumentReader | None = None
    ) -> None:
        self.limits = limits
        self._fetcher = fetcher
        self._requests = asyncio.Semaphore(limits.max_concurrent_requests)
        self._documents = DocumentReader(limits.documents) if documents is None else documents

    @contextlib.asynccontextmanager
    async def loaded(self, request: ChatCompletionRequest) -> AsyncIterator[Attachments]:
        """Load for a block that uses the attachments, and only there: so the files that are held stay bounded.

        Raises: as `load` does; ServiceUnavailable where too many others are fetching.
        """
        if all(is_data_uri(place.url) for place in _places(request)):
            # Nothing to wait for, and nothing held that is not in the request already.
            yield await self.load(request)
            return
        try:
            await asyncio.wait_for(self._requests.acquire(), self.limits.max_wait_s)
        except TimeoutError:
            raise ServiceUnavailable(retry_after_s=round(self.limits.max_wait_s)) from None
        try:
            yield await self.load(request)
        finally:
            self._requests.release()

    async def load(self, request: ChatCompletionRequest) -> Attachments:
        """Return the parts of every image and document chunk of a request.

        Files are fetched at once, a URL that occurs twice once. Cancelling it stops what it started. A request
        without such chunks costs nothing.
        Raises: InvalidFile, InvalidDocument, TooManyPages, naming the chunk; InvalidArguments for too many of them.
        """
        places = list(_places(request))
        if not places:
            return NO_ATTACHMENTS
        self._check_number(places)
        parts = await _Loading(self.limits, self._fetcher, self._documents).load(places)
        self._check_documents(places, parts)
        return Attachments(
            {(place.message, place.index): loaded for place, loaded in zip(places, parts, strict=True)}
        )

    def _check_number(self, places: list[_Place]) -> None:
        num_images = sum(isinstance(place.chunk, ImageURLChunk) for place in places)
        for what, count, limit in (
            ("images", num_images, self.limits.max_images),
            ("documents", len(places) - num_images, self.limits.max_documents),
        ):
            if count > limit:
                raise InvalidArguments(
                    f"Too many {what} in request: {count}, the maximum is {limit}.", param="messages"
                )

    def _check_documents(self, places: list[_Place], parts: list[tuple[Part, ...]]) -> None:
        """Hold several documents to the limits of a request; one alone has been held to them."""
        num_images = num_characters = 0
        for place, loaded in zip(places, parts, strict=True):
            if not isinstance(place.chunk, DocumentURLChunk):
                continue
            num_images += sum(isinstance(part, ImagePart) for part in loaded)
            num_characters += sum(len(part.text) for part in loaded if isinstance(part, TextPart))
            limits = self.limits.documents
            if num_images > limits.max_page_images:
                words = f"more than {limits.max_page_images} pages without text"
            elif num_characters > limits.max_characters:
                words = f"more than {limits.max_characters} characters"
            else:
                continue
            raise InvalidDocument(
                f"{place.where}: The documents of this request have {words}.", param="messages"
            )


class _Loading:
    """The loading of one request."""

    def __init__(self, limits: AttachmentLimits, fetcher: Fetcher, documents: DocumentReader) -> None:
        self._limits = limits
        self._fetcher = fetcher
        self._documents = documents
        self._slots = asyncio.Semaphore(limits.max_concurrent_fetches)
        self._files: dict[str, asyncio.Future[bytes]] = {}
        self._num_bytes = 0

    async def load(self, places: list[_Place]) -> list[tuple[Part, ...]]:
        largest: dict[str, int] = {}
        for place in places:
            largest[place.url] = max(largest.get(place.url, 0), self._max_bytes(place))
        self._files = {url: asyncio.ensure_future(self._fetch(url, size)) for url, size in largest.items()}
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._load_one(place)) for place in places]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            for file in self._files.values():
                file.cancel()
            await asyncio.gather(*self._files.values(), return_exceptions=True)
        return [task.result() for task in tasks]

    def _max_bytes(self, place: _Place) -> int:
        is_document = isinstance(place.chunk, DocumentURLChunk)
        return self._limits.documents.max_bytes if is_document else self._limits.images.max_bytes

    async def _fetch(self, url: str, max_bytes: int) -> bytes:
        async with self._slots:
            left = self._limits.max_request_bytes - self._num_bytes
            data = await self._fetcher.fetch(url, max_bytes=max_bytes) if left > 0 else b""
        self._num_bytes += len(data)
        if left <= 0 or self._num_bytes > self._limits.max_request_bytes:
            raise FetchError(
                f"the files of this request are larger than {self._limits.max_request_bytes} bytes"
            )
        return data

    async def _load_one(self, place: _Place) -> tuple[Part, ...]:
        try:
            # Shielded, because another chunk may wait for the same file.
            data = await asyncio.shield(self._files[place.url])
        except FetchError as error:
            raise InvalidFile(f"{place.where}: {error.message}", param="messages") from error
        if isinstance(place.chunk, DocumentURLChunk):
            return await self._documents.read(data, name=place.chunk.document_name, where=place.where)
        part = ImagePart(data, place.where)
        await asyncio.to_thread(check_header, part, self._limits.images)
        return (part,)


def _places(request: ChatCompletionRequest) -> Iterator[_Place]:
    for position, message in enumerate(request.messages):
        if message.content is None or isinstance(message.content, str):
            continue
        for index, chunk in enumerate(message.content):
            if isinstance(chunk, (ImageURLChunk, DocumentURLChunk)):
                yield _Place(position, index, chunk)
