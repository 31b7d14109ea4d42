"""A small HTTP server on loopback that speaks the contract's model list, stream and error bodies.

What it answers depends on the last message: `slow` streams words until the client goes away, `break` drops
the connection in the middle, `engine` ends with an error as a dead engine does, `busy` and `long` are
refused, `length` is cut, `escape` sends control characters; everything else is answered by its number of
messages.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self

KEY = "mz-key-of-the-test-server-0123456789"
MODELS = ("mistral-medium-latest", "mistral-medium-2505")


class SseServer:
    """Runs inside `with`. `requests` are the bodies received; `hung_up` is set when a client left."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.hung_up = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def texts(self, request: int = -1) -> list[tuple[str, str]]:
        """Return role and text of the messages of one request, for an image the beginning of its URL."""
        return [(m["role"], _text(m["content"])) for m in self.requests[request]["messages"]]


def _text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(
        chunk["text"] if chunk["type"] == "text" else f"<{chunk['image_url'][:22]}>" for chunk in content
    )


class _Handler(BaseHTTPRequestHandler):
    owner: ClassVar[SseServer]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self._is_allowed():
            self._json(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._is_allowed():
            return
        self.owner.requests.append(body)
        question = _text(body["messages"][-1]["content"])
        if body["model"] not in MODELS:
            self._error(400, f"Invalid model: {body['model']}", "invalid_model", "1500")
        elif question == "busy":
            self._error(429, "Rate limit exceeded", "rate_limited", "1300", ("retry-after", "7"))
        elif question == "long":
            self._error(
                400,
                "Prompt contains 9 tokens and 0 draft tokens, too large for model with 8 maximum "
                "context length",
                "invalid_request_invalid_args",
                "3051",
            )
        elif body.get("max_tokens") == -1:
            item = {"type": "greater_than_equal", "loc": ["body", "max_tokens"], "msg": "Input should be …"}
            self._json(422, {"detail": [item]})
        else:
            self._stream(body, question)

    def _stream(self, body: dict[str, Any], question: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.end_headers()
        try:
            self._chunk({"role": "assistant", "content": ""})
            self._write(": ping\n\n")
            if question == "slow":
                for number in range(600):
                    self._chunk({"content": f"word{number} "})
                    time.sleep(0.02)
            elif question in ("break", "engine"):
                self._chunk({"content": "half an ans"})
                if question == "engine":
                    self._finish("error", "")
            elif question == "length":
                self._finish("length", "cut off")
            elif question == "escape":
                self._finish("stop", "a\x1b]0;title\x07b\x9bc\td")
            else:
                self._chunk({"content": "Réponse "})
                self._finish("stop", f"{len(body['messages'])}.")
        except OSError:
            self.owner.hung_up.set()

    def _finish(self, reason: str, text: str) -> None:
        usage = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}
        self._chunk({"content": text}, reason, usage=usage, p="abc")
        self._write("data: [DONE]\n\n")

    def _chunk(self, delta: dict[str, str], reason: str | None = None, **extra: Any) -> None:
        chunk = {
            "id": "0" * 32,
            "object": "chat.completion.chunk",
            "created": 1,
            "model": MODELS[0],
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }
        self._write("data: " + json.dumps(chunk | extra) + "\n\n")

    def _write(self, text: str) -> None:
        self.wfile.write(text.encode())
        self.wfile.flush()

    def _is_allowed(self) -> bool:
        sent = self.headers["authorization"]
        self.owner.keys.append(sent)
        if sent != f"Bearer {KEY}":
            self._json(401, {"detail": "Invalid API Key"})
        return sent == f"Bearer {KEY}"

    def _error(self, status: int, message: str, type_: str, code: str, *headers: tuple[str, str]) -> None:
        body = {"object": "error", "message": message, "type": type_, "param": None, "code": code}
        self._json(status, body | {"raw_status_code": status}, *headers)

    def _json(self, status: int, body: object, *headers: tuple[str, str]) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)
