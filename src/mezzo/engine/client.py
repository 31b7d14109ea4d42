"""The server's side of the engine process: starts it, talks to it, and starts it again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import subprocess
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.launch import EngineProcess, launch_engine
from mezzo.engine.messages import (
    HEADER,
    Abort,
    AddRequest,
    EngineStats,
    Failed,
    ImageInput,
    Loading,
    Ready,
    SequenceOutput,
    Start,
    StepDone,
    Stop,
    decode_from_engine,
    encode_frame,
)
from mezzo.engine.sampling_params import SamplingParams
from mezzo.engine.sequence import TokenScore
from mezzo.kit.ids import new_uuid

log = structlog.get_logger()

_STOP_TIMEOUT_S = 5.0
_MAX_BACKOFF_S = 30.0
# A request that comes while the engine loads or restarts waits this long before it is told to come back.
_SUBMIT_PATIENCE_S = 30.0
# Pixels that running and queued requests may hold, on both sides of the border.
_MAX_IMAGE_BYTES = 1 << 30
# An engine that lived this long was not killed by its own start.
_HEALTHY_AFTER_S = 10.0
_MAX_RUNS = 16


class EngineDied(Exception):
    """The engine process ended under a running request."""


class EngineFull(Exception):
    """As many sequences are running and queued as are allowed."""


class EngineUnavailable(Exception):
    """There is no engine: it cannot load, or it was stopped. The message says which."""


class State(enum.Enum):
    """What the engine process is doing."""

    LOADING = enum.auto()
    READY = enum.auto()
    FAILED = enum.auto()
    STOPPED = enum.auto()


@dataclass(slots=True)
class EngineRun:
    """One engine process, and its own counts as of its last message.

    num_requests, num_prompt_tokens   requests that it took, and the tokens of their prompts
    num_completion_tokens             tokens that it produced
    """

    id: str
    started_at: datetime
    num_requests: int = 0
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0


class EngineStream:
    """The outputs of one request, in the order they were produced.

    Iterating yields lists: all that arrived since the last look. It ends when every choice has finished.

    run_id          the engine process that it was sent to last
    number          how many requests this one's engine process had been sent with it
    may_be_resent   whether it goes to the next process, should this one die without having read it
    """

    def __init__(self, request: AddRequest) -> None:
        self.request = request
        self.num_unfinished = request.n
        self.run_id: str | None = None
        self.number = 0
        self.may_be_resent = True
        self._pending: deque[SequenceOutput] = deque()
        self._wake = asyncio.Event()
        self._died = False

    def push(self, output: SequenceOutput) -> None:
        """Take an output from the engine."""
        self._pending.append(output)
        self.num_unfinished -= output.finish_reason is not None
        self._wake.set()

    def fail(self) -> None:
        """The engine died; what arrived before is still delivered."""
        self._died = True
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[list[SequenceOutput]]:
        """Raises: EngineDied."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = list(self._pending)
            self._pending.clear()
            if batch:
                yield batch
            if self.num_unfinished == 0 and not self._pending:
                return
            if self._died and not self._pending:
                raise EngineDied


class EngineClient:
    """One engine process and its supervision. `spawn` needs no event loop; all else belongs to one loop."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        max_queue: int,
        start_timeout_s: float,
        on_loading: Callable[[int, int], None] = lambda loaded, total: None,
        launch: Callable[[], EngineProcess] = launch_engine,
    ) -> None:
        self.config = config
        self.max_queue = max_queue
        self.start_timeout_s = start_timeout_s
        self.on_loading = on_loading
        self._launch = launch
        self.state = State.LOADING
        self.ready: Ready | None = None
        self.stats: EngineStats | None = None
        self.num_restarts = 0
        # Those that ended stay a while: their last counts are of interest after their death.
        self.runs: deque[EngineRun] = deque(maxlen=_MAX_RUNS)
        self._vocabulary: Vocabulary | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._streams: dict[str, EngineStream] = {}
        self._state_changed = asyncio.Event()
        self._num_sent = 0
        self._failure = ""
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the engine while it runs."""
        return self._process.pid if self._process else None

    def spawn(self) -> None:
        """Start the process. Call early: it imports torch while the caller does other things."""
        launched = self._launch()
        self._process, self._socket = launched.process, launched.socket
        self.runs.append(EngineRun(new_uuid(), datetime.now(UTC)))

    async def start(self, vocabulary: Vocabulary) -> Ready:
        """Load, and return when the engine takes requests. Raises: EngineUnavailable with the reason."""
        self._vocabulary = vocabulary
        self._supervisor = asyncio.create_task(self._supervise(), name="engine-supervisor")
        return await self._wait_until_ready(self.start_timeout_s)

    async def submit(self, request: AddRequest) -> EngineStream:
        """Send a request, waiting while the engine loads or restarts.

        Raises: EngineFull, EngineUnavailable.
        """
        await self._wait_until_ready(min(self.start_timeout_s, _SUBMIT_PATIENCE_S))
        num_sequences = sum(stream.num_unfinished for stream in self._streams.values())
        if num_sequences + request.n > self.config.max_num_seqs + self.max_queue:
            raise EngineFull(f"{num_sequences} sequences are running or queued")
        num_image_bytes = sum(_image_bytes(stream.request) for stream in self._streams.values())
        if num_image_bytes and num_image_bytes + _image_bytes(request) > _MAX_IMAGE_BYTES:
            raise EngineFull(f"images of running and queued requests take {num_image_bytes} bytes")
        stream = EngineStream(request)
        self._streams[request.request_id] = stream
        self._send_request(stream)
        return stream

    async def score(
        self, request_id: str, token_ids: list[int], scored_from: int, images: tuple[ImageInput, ...] = ()
    ) -> tuple[TokenScore, ...]:
        """Return how likely each token from position `scored_from` on is after those before it.

        Raises: EngineFull, EngineUnavailable; EngineDied if the engine ended meanwhile; ValueError for what the engine
        refuses: a position without a token before it, ids outside the vocabulary, more tokens than the context has.
        """
        request = AddRequest(
            request_id=request_id,
            prompt_token_ids=token_ids,
            params=SamplingParams(max_tokens=0),
            images=images,
            scored_from=scored_from,
        )
        async for outputs in await self.submit(request):
            if outputs[-1].finish_reason == "length":
                return outputs[-1].scores
        raise ValueError("the engine refused to score these tokens")

    def abort(self, request_id: str) -> None:
        """Stop a request; the engine frees its place before its next step, and then its stream ends.

        Does nothing if it has ended.
        """
        if request_id not in self._streams:
            return
        if self._writer is None:  # it waits for the next engine
            self._streams.pop(request_id).fail()
        else:
            self._streams[request_id].may_be_resent = False
            self._send(Abort(request_id))

    async def stop(self) -> None:
        """End the process, and every request with it. Safe to call twice, and before `start`."""
        self._set_state(State.STOPPED, "the server is stopping")
        self._send(Stop())
        if self._supervisor:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        self._fail_streams()
        await self._reap(_STOP_TIMEOUT_S)

    async def _wait_until_ready(self, patience_s: float) -> Ready:
        deadline = time.monotonic() + patience_s
        while not (self.state is State.READY and self.ready):
            if self.state in (State.FAILED, State.STOPPED):
                raise EngineUnavailable(self._failure)
            try:
                await asyncio.wait_for(self._state_changed.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise EngineUnavailable(f"the engine was not ready within {patience_s:g} s") from None
        return self.ready

    async def _supervise(self) -> None:
        """Keep an engine running; if that itself goes wrong, say so to everyone who waits."""
        try:
            await self._run_again_and_again()
        except Exception as error:
            log.exception("engine_supervisor_failed")
            self._set_state(State.FAILED, f"the engine cannot be supervised: {error}")
            self._fail_streams()
            await self._reap(_STOP_TIMEOUT_S)

    async def _run_again_and_again(self) -> None:
        """Run the engine, and run it again when it dies; give up only if it never loaded."""
        backoff_s = 0.0
        while True:
            if self._process is None:
                await asyncio.sleep(backoff_s)
                self.spawn()
            ready_at = await self._run()
            self._set_state(State.LOADING, self._failure)
            num_read = self.stats.num_requests if self.stats else 0
            self.stats = None
            self._fail_streams(num_read)
            code = await self._reap(timeout_s=_STOP_TIMEOUT_S)
            if self.ready is None:
                self._set_state(
                    State.FAILED, self._failure or f"the engine process {_describe_exit(code)} while loading"
                )
                return
            lived_s = 0.0 if ready_at is None else time.monotonic() - ready_at
            backoff_s = 0.0 if lived_s > _HEALTHY_AFTER_S else min(2 * backoff_s + 0.5, _MAX_BACKOFF_S)
            self.num_restarts += 1
            log.error(
                "engine_died", exit=_describe_exit(code), restart_in_s=backoff_s, reason=self._failure or None
            )

    async def _run(self) -> float | None:
        """Talk to the process until its connection closes. Returns when it became ready, on the monotonic clock."""
        assert self._socket is not None
        assert self._vocabulary is not None
        reader, self._writer = await asyncio.open_connection(sock=self._socket)
        self._num_sent = 0
        self._send(Start(self.config, self._vocabulary))
        ready_at = None
        try:
            while True:
                header = await reader.readexactly(HEADER.size)
                message = decode_from_engine(await reader.readexactly(HEADER.unpack(header)[0]))
                if isinstance(message, StepDone):
                    self.stats = message.stats
                    self._note_counts(message.stats)
                    self._dispatch(message.outputs)
                elif isinstance(message, Ready):
                    ready_at = time.monotonic()
                    self.ready = message
                    for stream in self._streams.values():
                        stream.may_be_resent = False
                        self._send_request(stream)
                    self._set_state(State.READY, "")
                    log.info(
                        "engine_ready", **{name: getattr(message, name) for name in message.__struct_fields__}
                    )
                elif isinstance(message, Loading):
                    self.on_loading(message.loaded, message.total)
                elif isinstance(message, Failed):
                    self._failure = message.message
        except (asyncio.IncompleteReadError, ConnectionError):
            return ready_at
        finally:
            self._writer.close()
            self._writer = None
            self._socket = None

    def _note_counts(self, stats: EngineStats) -> None:
        run = self.runs[-1]
        run.num_requests = stats.num_requests
        run.num_prompt_tokens = stats.num_prompt_tokens
        run.num_completion_tokens = stats.num_completion_tokens

    def _dispatch(self, outputs: list[SequenceOutput]) -> None:
        for output in outputs:
            stream = self._streams.get(output.request_id)
            if stream is None:
                continue  # not ours: the engine refused an id that was in use
            stream.push(output)
            if stream.num_unfinished == 0:
                del self._streams[output.request_id]

    def _send(self, message: Start | AddRequest | Abort | Stop) -> None:
        # Without a writer the engine has just died; the supervisor is about to fail every stream.
        if self._writer is not None:
            self._writer.write(encode_frame(message))

    def _send_request(self, stream: EngineStream) -> None:
        self._num_sent += 1
        stream.number = self._num_sent
        stream.run_id = self.runs[-1].id
        self._send(stream.request)

    def _fail_streams(self, num_read: int | None = None) -> None:
        """Fail every stream; given how many requests the engine had read, only those it had begun to work on.

        What was written to an engine as it died is sent to the next one. Once: should it be the request that kills
        engines, it must not kill them for ever.
        """
        streams, self._streams = self._streams, {}
        for request_id, stream in streams.items():
            if num_read is not None and stream.number > num_read and stream.may_be_resent:
                self._streams[request_id] = stream
            else:
                stream.fail()

    def _set_state(self, state: State, failure: str) -> None:
        self.state = state
        self._failure = failure
        self._state_changed.set()
        self._state_changed = asyncio.Event()

    async def _reap(self, timeout_s: float) -> int | None:
        """Wait for the process to end, and end it if it does not. Returns its exit code."""
        process, self._process = self._process, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is None:
            return None
        try:
            return await asyncio.to_thread(process.wait, timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return await asyncio.to_thread(process.wait)


def _image_bytes(request: AddRequest) -> int:
    return sum(len(image.pixels) for image in request.images)


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by signal {-code}"
    return f"left with code {code}"
