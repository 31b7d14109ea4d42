"""The HTTP protocol: uvicorn's, with refusals in the API's shape and no request forgotten at a hang-up."""

from __future__ import annotations

from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from mezzo.kit.ids import new_correlation_id
from mezzo.server.exchange import CORRELATION_HEADER

MAX_HEAD_BYTES = 64 * 1024


class ApiProtocol(HttpToolsProtocol):
    """One connection.

    What differs from uvicorn's: what is no HTTP is refused in JSON; a request line and headers of more than
    MAX_HEAD_BYTES are refused; an offer to upgrade (HTTP/2 of Java's client) is declined without losing the
    body; and when the client leaves, every unanswered request of the connection learns it, not only the last
    of those that were pipelined.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_in_head = True
        self._num_head_bytes = 0
        self._unanswered: list[RequestResponseCycle] = []

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            self._num_head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        # What came with the end of a head may be its body: only an unfinished head can be too long.
        if self._is_in_head and self._num_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Request headers are too large.")

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if self._offers_upgrade():
            return  # the parser stops here; the request begins when it is read again without the offer
        super().on_headers_complete()
        self._unanswered = [cycle for cycle in self._unanswered if not cycle.response_complete]
        self._unanswered.append(self.cycle)

    def on_message_complete(self) -> None:
        if not self._offers_upgrade():
            super().on_message_complete()
        self._is_in_head, self._num_head_bytes = True, 0

    def _offers_upgrade(self) -> bool:
        # CONNECT counts as an upgrade to the parser, without the header.
        return self.parser.should_upgrade() and any(name == b"upgrade" for name, _ in self.headers)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read the request again without its offer, and then what followed; its body is plain HTTP/1.1."""
        headers = [(name, value) for name, value in self.headers if name != b"upgrade"]
        if len(headers) == len(self.headers):  # CONNECT: nothing to be read after it
            return
        line = b" ".join(
            [self.parser.get_method(), self.url, b"HTTP/" + self.parser.get_http_version().encode()]
        )
        head = b"\r\n".join([line, *(name + b": " + value for name, value in headers), b"", b""])
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for cycle in self._unanswered:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be understood and close; a half-sent answer is cut, not mixed with another."""
        if not any(cycle.response_started and not cycle.response_complete for cycle in self._unanswered):
            self.transport.write(_bad_request(msg))
        self.transport.close()


def _bad_request(message: str) -> bytes:
    body = msgspec.json.encode(
        {
            "object": "error",
            "message": message,
            "type": "invalid_request_error",
            "param": None,
            "code": None,
            "raw_status_code": 400,
        }
    )
    head = (
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"{CORRELATION_HEADER}: {new_correlation_id()}\r\nconnection: close\r\n\r\n"
    )
    return STATUS_LINE[400] + head.encode("ascii") + body
