"""A server on loopback that answers chat requests with a script, byte by byte, and tells what it saw."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Script = list[bytes | float | None]

DONE = b"data: [DONE]\n\n"
STREAM = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
OPENAI_MODELS = {"object": "list", "data": [{"id": "there", "object": "model", "owned_by": "someone"}]}
VLLM_MODELS = {"object": "list", "data": [{"id": "there", "owned_by": "vllm", "max_model_len": 5000}]}


class ScriptedUpstream:
    """Answers every POST with `script`: bytes as one HTTP chunk, numbers as pauses in seconds, None to cut.

    status, headers, body   of answers that are no streams: used where `body` is not None
    models                  the answer to GET /v1/models; None for 404
    bodies, heads           of every POST so far
    num_connections         accepted so far
    hung_up                 set when a client left before its answer's end
    """

    def __init__(self, port: int = 0) -> None:
        self.script: Script = []
        self.status = 200
        self.headers = STREAM
        self.body: bytes | None = None
        self.models: Any = None
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.num_connections = 0
        self.hung_up = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        # A thread that waits in accept or recv does not notice that its socket is closed.
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.num_connections += 1
            self._open.add(connection)
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as reader:
                while self._answer_one(connection, reader):
                    pass
        except OSError:
            self.hung_up.set()
        finally:
            self._open.discard(connection)

    def _answer_one(self, connection: socket.socket, reader: Any) -> bool:
        lines = []
        while line := reader.readline().decode().rstrip("\r\n"):
            lines.append(line)
        if not lines:
            return False
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        if lines[0].startswith("GET"):
            connection.sendall(self._models_answer())
            return True
        self.bodies.append(json.loads(reader.read(int(headers["content-length"]))))
        self.heads.append("\n".join(lines).lower())
        if self.body is not None:
            head = f"HTTP/1.1 {self.status} X\r\n{self.headers}Content-Length: {len(self.body)}\r\n\r\n"
            connection.sendall(head.encode() + self.body)
            return True
        return self._play(connection)

    def _play(self, connection: socket.socket) -> bool:
        connection.sendall(f"HTTP/1.1 {self.status} X\r\n{self.headers}\r\n".encode())
        for part in list(self.script):
            if part is None:
                return False
            if isinstance(part, float):
                if select.select([connection], [], [], part)[0] and not connection.recv(1, socket.MSG_PEEK):
                    self.hung_up.set()
                    return False
                continue
            connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        connection.sendall(b"0\r\n\r\n")
        return True

    def _models_answer(self) -> bytes:
        body = json.dumps(self.models).encode()
        status = "404 X" if self.models is None else "200 OK"
        return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def scripted_upstream(port: int = 0) -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(port)
    try:
        yield upstream
    finally:
        upstream.stop()


def chunk(
    delta: dict[str, Any] | str | None = None, reason: str | None = None, *, index: int = 0, **extra: Any
) -> bytes:
    """Return an event with one choice; text is short for a delta of content."""
    delta = {"content": delta} if isinstance(delta, str) else delta or {}
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return event({"choices": [choice], **extra})


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def usage(prompt: int, completion: int, **extra: Any) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion, **extra}}


def totals(prompt: int, completion: int, **extra: Any) -> bytes:
    """Return the event of no choice in which OpenAI's servers report their usage."""
    return event({"choices": [], **usage(prompt, completion, **extra)})
