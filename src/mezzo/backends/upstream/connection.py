"""HTTP to one upstream: connections that are kept, streams that are read, failures that are named.

The client is aiohttp: a streamed request to an upstream that does nothing costs it 0.3 ms of processor time and httpx
2.0 ms (medians of three runs on two shared cores), more than all the rest that mezzo does for a request.
Redirects are not followed, cookies and the environment's proxies not used, and nothing is decompressed.
"""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import Any

import aiohttp
from yarl import URL

from mezzo import __version__
from mezzo.backends.base import BackendUnavailable
from mezzo.backends.upstream.choice import BrokenAnswer
from mezzo.backends.upstream.errors import failure_in_stream, refusal
from mezzo.backends.upstream.sse import EventReader, EventTooLarge
from mezzo.backends.upstream.wire import UNREADABLE, Chunk, decode_chunk

MAX_EVENT_BYTES = 4 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
MAX_LIST_BYTES = 4 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0
# Shorter than the five seconds after which uvicorn, and with it vLLM, closes a connection that is idle: a request that
# is sent while the other side hangs up would be lost.
_KEEP_ALIVE_S = 4.0
# What a stream that has said [DONE] may take to end, so that its connection can be used again.
_END_TIMEOUT_S = 0.1
_LIST_TIMEOUT = aiohttp.ClientTimeout(total=CONNECT_TIMEOUT_S)
_DONE = b"[DONE]"

_NETWORK_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)


class UpstreamLost(BackendUnavailable):
    """The upstream could not be reached, or hung up or fell silent before it answered."""


class UpstreamConnection:
    """The connections to one upstream. Used from one event loop, between `open` and `close`."""

    def __init__(self, base_url: str, *, api_key: str | None, timeout_s: float) -> None:
        """timeout_s: of silence, after which an answer is given up."""
        self._base_url = base_url
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}

    def open(self) -> None:
        """Get ready to connect; nothing is sent."""
        headers = {"user-agent": f"mezzo/{__version__}", "accept-encoding": "identity"}
        if self._api_key is not None:
            headers["authorization"] = f"Bearer {self._api_key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self._timeout_s
            ),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Cut every connection. Safe to call twice."""
        if self._session is not None:
            await self._session.close()

    async def list_models(self) -> bytes | None:
        """Return the body of `GET /models`; None from a server that has no such path, or too long a list.

        Raises: UpstreamLost; BackendUnavailable for any other answer.
        """
        try:
            response = await self._request("GET", "/models", timeout=_LIST_TIMEOUT)
            with contextlib.closing(response):
                body = await _beginning(response, MAX_LIST_BYTES + 1)
        except _NETWORK_ERRORS as error:
            raise _lost(error) from error
        if response.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            return None
        if response.status != HTTPStatus.OK:
            raise BackendUnavailable(f"HTTP {response.status} from the upstream, asked for its models")
        return body if len(body) <= MAX_LIST_BYTES else None

    async def stream(self, path: str, body: bytes, *, request_id: str) -> ChunkStream:
        """Send a request and return the stream of its answer, whose first chunk has come.

        Raises: UpstreamLost, BackendUnavailable; ApiError for what the upstream says is the request's fault.
        """
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "x-request-id": request_id,
        }
        try:
            response = await self._request("POST", path, data=body, headers=headers)
            stream = ChunkStream(response, secret=self._api_key)
            await stream.begin()
        except _NETWORK_ERRORS as error:
            raise _lost(error) from error
        return stream

    async def _request(self, method: str, path: str, **options: Any) -> aiohttp.ClientResponse:
        assert self._session is not None, "the connection was not opened"
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._base_url + path)
        return await self._session.request(method, url, allow_redirects=False, **options)


class _FailureInStream(BrokenAnswer):
    """An event that tells a failure instead of a chunk's content."""

    def __init__(self, failure: Any, secret: str | None) -> None:
        self.as_refusal = failure_in_stream(failure, secret=secret)
        super().__init__(str(self.as_refusal))


class ChunkStream:
    """The chunks of one answer, in order, as many at a time as have come: the busier this process, the more."""

    def __init__(self, response: aiohttp.ClientResponse, *, secret: str | None) -> None:
        self._response = response
        self._secret = secret
        self._reader = EventReader(MAX_EVENT_BYTES)
        self._read: list[Chunk] = []
        self._is_done = False
        self._fault: BrokenAnswer | None = None

    async def begin(self) -> None:
        """Wait for the first chunk; cut the connection if none comes.

        Raises: BackendUnavailable, ApiError, and what a broken connection does.
        """
        try:
            await self._begin()
        except BaseException:
            self.close()
            raise

    async def next(self) -> list[Chunk]:
        """Return the chunks that have come, having waited for one; none when the upstream is done.

        Raises: BrokenAnswer, when all chunks before the break were returned.
        """
        if not self._read:
            try:
                await self._fill()
            except _NETWORK_ERRORS as error:
                raise BrokenAnswer(f"the connection to the upstream broke: {_words(error)}") from error
        chunks, self._read = self._read, []
        return chunks

    async def end(self) -> None:
        """Leave the connection for the next request if the answer ends right away, else cut it."""
        content = self._response.content
        if not content.at_eof():
            with contextlib.suppress(*_NETWORK_ERRORS):
                async with asyncio.timeout(_END_TIMEOUT_S):
                    while await content.readany():
                        pass
        self.close()

    def close(self) -> None:
        """Cut the connection unless the answer has been read to its end. Safe to call twice, and meanwhile."""
        self._response.close()

    async def _begin(self) -> None:
        response = self._response
        if response.status != HTTPStatus.OK:
            beginning = await _beginning(response, MAX_ERROR_BYTES)
            raise refusal(response.status, response.headers, beginning, secret=self._secret)
        if response.content_type != "text/event-stream":
            raise BackendUnavailable(f"the upstream answered {response.content_type[:100]}, not a stream")
        try:
            await self._fill()
        except _FailureInStream as failure:
            raise failure.as_refusal from failure
        except BrokenAnswer as error:
            raise BackendUnavailable(str(error)) from error
        if not self._read:
            raise BackendUnavailable("the upstream ended its answer before it began")

    async def _fill(self) -> None:
        """Read until there is a chunk or the end. Raises: BrokenAnswer, and what a broken connection does."""
        while not self._read and not self._is_done:
            if self._fault is not None:
                raise self._fault
            piece = await self._response.content.readany()
            if not piece:
                self._is_done = True
                return
            try:
                self._decode(self._reader.feed(piece))
            except EventTooLarge as error:
                self._fault = BrokenAnswer(str(error))
            except BrokenAnswer as error:
                self._fault = error

    def _decode(self, events: list[bytes]) -> None:
        for data in events:
            if data == _DONE:
                self._is_done = True
                return
            try:
                chunk = decode_chunk(data)
            except UNREADABLE as error:
                raise BrokenAnswer(f"an event that is no chunk: {error}") from error
            if chunk.failure is not None:
                raise _FailureInStream(chunk.failure, self._secret)
            self._read.append(chunk)


async def _beginning(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return the first bytes of a body."""
    body = b""
    while len(body) < max_bytes and (piece := await response.content.readany()):
        body += piece
    return body[:max_bytes]


def _lost(error: BaseException) -> UpstreamLost:
    return UpstreamLost(f"the upstream cannot be reached: {_words(error)}")


def _words(error: BaseException) -> str:
    """Return what a network error says, with its kind: some say nothing."""
    return f"{type(error).__name__} {error}".strip()[:300]
