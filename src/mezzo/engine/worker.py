"""The engine process: reads messages from a socket, steps the core, writes what each step produced.

Run as `python -m mezzo.engine.worker FD`, where FD is an inherited socket; see `mezzo.engine.client`. It leaves
when the socket closes, so it never outlives its server, and it leaves stopping to the server: a Ctrl-C or a
service manager signals every process, but running streams are still to be finished.
"""

from __future__ import annotations

import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mezzo.engine.messages import (
    HEADER,
    Abort,
    AddRequest,
    Failed,
    FromEngine,
    Loading,
    Ready,
    SequenceOutput,
    Start,
    StepDone,
    Stop,
    ToEngine,
    decode_to_engine,
    encode_frame,
)
from mezzo.engine.torch_import import import_torch
from mezzo.kit.heap import growing_heap

_WARM_UP_PROMPT = 32
_COMPILING_LOOK_S = 0.005  # between looks at grammars that compile, where there is nothing else to do

if TYPE_CHECKING:
    from mezzo.engine.core import EngineCore


class ServerGone(Exception):
    """The other end of the socket closed."""


class Connection:
    """Frames over a blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()

    def send(self, message: FromEngine) -> None:
        """Raises: ServerGone."""
        try:
            self._socket.sendall(encode_frame(message))
        except OSError as error:
            raise ServerGone from error

    def receive(self, timeout_s: float | None) -> Iterator[ToEngine]:
        """Yield the messages that have arrived; wait so long for the first one, None for ever. Raises: ServerGone."""
        while True:
            found = False
            while (payload := self._take_frame()) is not None:
                found = True
                yield decode_to_engine(payload)
            if found or not self._read(timeout_s):
                return

    def _take_frame(self) -> bytes | None:
        if len(self._buffer) < HEADER.size:
            return None
        end = HEADER.size + HEADER.unpack_from(self._buffer)[0]
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return payload

    def _read(self, timeout_s: float | None) -> bool:
        """Read what is there into the buffer; False if nothing came in time."""
        if timeout_s is not None and not select.select([self._socket], [], [], timeout_s)[0]:
            return False
        try:
            data = self._socket.recv(1 << 20)
        except OSError as error:
            raise ServerGone from error
        if not data:
            raise ServerGone
        self._buffer += data
        return True


def serve(connection: Connection) -> None:
    """Load, then step until told to stop. Raises: ServerGone."""
    with growing_heap():
        core = _load(connection)
    if core is None:
        return
    while True:
        early: list[SequenceOutput] = []
        for message in connection.receive(_patience_s(core)):
            if isinstance(message, Stop):
                return
            early += _handle(core, message)
        outputs = early + core.step()
        connection.send(StepDone(outputs, core.stats))


def _load(connection: Connection) -> EngineCore | None:
    """Load what the server asks for, and tell it how that ended; None if it cannot be loaded. Raises: ServerGone."""
    # Imported before the server has anything to say: it is importing too, and two cores can do both.
    import_torch()
    from mezzo.engine.core import EngineCore  # noqa: PLC0415
    from mezzo.engine.loader import CannotLoad, load_runner  # noqa: PLC0415
    from mezzo.model.config import UnsupportedCheckpoint  # noqa: PLC0415

    start = next(iter(connection.receive(None)))
    if not isinstance(start, Start):
        raise TypeError(f"the first message must be start, not {type(start).__name__}")
    began = time.monotonic()
    progress = ProgressReports(connection)
    try:
        runner = load_runner(start.config, progress.report)
    except (CannotLoad, UnsupportedCheckpoint, MemoryError) as error:
        connection.send(Failed(str(error) or "out of memory"))
        return None
    warm_up(EngineCore(start.config, start.vocabulary, runner))
    core = EngineCore(start.config, start.vocabulary, runner)
    connection.send(_ready(core, load_s=time.monotonic() - began))
    return core


def _ready(core: EngineCore, *, load_s: float) -> Ready:
    runner = core.runner
    decoder, cache = runner.decoder, runner.cache
    return Ready(
        device=str(decoder.device),
        dtype=runner.network.number_format,
        threads=num_threads(),
        max_context_length=core.max_context_length,
        num_blocks=cache.num_blocks,
        block_size=cache.block_size,
        weights_bytes=runner.network.num_bytes,
        kv_cache_bytes=cache.num_bytes,
        load_s=load_s,
    )


def _patience_s(core: EngineCore) -> float | None:
    """Return how long to wait for a message: for ever where nothing else can bring work."""
    if core.has_work:
        return 0
    return _COMPILING_LOOK_S if core.is_compiling else None


def _handle(core: EngineCore, message: ToEngine) -> list[SequenceOutput]:
    """Do what the server asks; return the outputs that come of it without a step."""
    if isinstance(message, Abort):
        return core.abort(message.request_id)
    if isinstance(message, AddRequest):
        try:
            core.add(message)
        except ValueError as error:
            # The server checks before it sends; if the two ever disagree the request still ends, and visibly.
            print(f"mezzo engine: request refused: {error}", file=sys.stderr)  # noqa: T201
            return [
                SequenceOutput(
                    request_id=message.request_id, index=i, text="", num_tokens=0, finish_reason="error"
                )
                for i in range(message.n)
            ]
    return []


def warm_up(core: EngineCore) -> None:
    """Generate a few tokens: one-time costs (kernels for a shape, thread pools) are paid before readiness."""
    from mezzo.engine.sampling_params import SamplingParams  # noqa: PLC0415 - see serve()

    num_prompt = min(_WARM_UP_PROMPT, core.max_context_length - 2)
    if num_prompt < 1:
        return
    params = SamplingParams(temperature=1.0, top_p=0.9, seed=0, max_tokens=2)
    core.add(AddRequest(request_id="warm-up", prompt_token_ids=[0] * num_prompt, params=params))
    while core.has_work:
        core.step()


class ProgressReports:
    """Sends at most ten progress messages a second."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = 0.0

    def report(self, loaded: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= 0.1 or loaded >= total:
            self._last = now
            self._connection.send(Loading(loaded, total))


def num_threads() -> int:
    import torch  # noqa: PLC0415 - see serve()

    return torch.get_num_threads()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        try:
            serve(Connection(sock))
        except ServerGone:
            return


if __name__ == "__main__":
    main()
