"""A chat server that answers at once and always the same: what any server before it adds is its own.

    python -m benchmarks.noop_upstream --port 8900

One process on uvloop and httptools: several thousand requests a second on one core. It keeps connections open,
answers `POST /v1/chat/completions` as JSON or, where the request says so, as a stream, and `GET /v1/models`.
"""

from __future__ import annotations

import argparse
import asyncio
from http import HTTPStatus
from typing import Any, cast

import httptools
import msgspec
import uvloop

MODEL = "noop"
WORDS = ("One", " two", " three", " four")
PROMPT_TOKENS = 12

_USAGE = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": len(WORDS),
    "total_tokens": PROMPT_TOKENS + len(WORDS),
}
_HEAD = {"id": "chatcmpl-noop", "created": 1_790_000_000, "model": MODEL}


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Request(msgspec.Struct):
    """What the answer depends on."""

    stream: bool = False
    stream_options: _StreamOptions | None = None


def _whole() -> bytes:
    message = {"role": "assistant", "content": "".join(WORDS), "tool_calls": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return msgspec.json.encode(_HEAD | {"object": "chat.completion", "choices": [choice], "usage": _USAGE})


def _stream(*, include_usage: bool) -> bytes:
    chunk = _HEAD | {"object": "chat.completion.chunk"}

    def event(**fields: Any) -> bytes:
        return b"data: " + msgspec.json.encode(chunk | fields) + b"\n\n"

    def choice(delta: dict[str, str], reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "finish_reason": reason}]

    events = [event(choices=choice({"role": "assistant", "content": ""}))]
    events += [event(choices=choice({"content": word})) for word in WORDS]
    events.append(event(choices=choice({}, "stop")))
    if include_usage:
        events.append(event(choices=[], usage=_USAGE))
    return b"".join([*(_http_chunk(one) for one in events), _http_chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"])


def _http_chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def _json_answer(status: HTTPStatus, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
# Made once, so that the figures of a server before this one are not those of making answers.
_WHOLE = _json_answer(HTTPStatus.OK, _whole())
_STREAMS = {usage: _STREAM_HEAD + _stream(include_usage=usage) for usage in (False, True)}
_MODELS = _json_answer(
    HTTPStatus.OK, msgspec.json.encode({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
)
_NOT_FOUND = _json_answer(HTTPStatus.NOT_FOUND, b'{"error":{"message":"no such path"}}')
_BAD_REQUEST = _json_answer(HTTPStatus.BAD_REQUEST, b'{"error":{"message":"no such request"}}')


class NoopProtocol(asyncio.Protocol):
    """One connection."""

    _decoder = msgspec.json.Decoder(_Request)

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._path = b""
        self._body: list[bytes] = []

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._close()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._path, self._body = b"", []

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._transport is None:
            return
        self._transport.write(self._answer())
        if not self._parser.should_keep_alive():
            self._close()

    def _answer(self) -> bytes:
        if self._path == b"/v1/models":
            return _MODELS
        if self._path != b"/v1/chat/completions":
            return _NOT_FOUND
        try:
            request = self._decoder.decode(b"".join(self._body))
        except msgspec.DecodeError:
            return _BAD_REQUEST
        if not request.stream:
            return _WHOLE
        return _STREAMS[request.stream_options is not None and request.stream_options.include_usage]

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def serve(port: int) -> None:
    """Serve on this machine's loopback until cancelled."""
    server = await asyncio.get_running_loop().create_server(NoopProtocol, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8900)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
