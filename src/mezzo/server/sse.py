"""The stream of a chat answer, byte by byte.

    role chunk per choice -> text chunks, choices interleaved -> finish chunks, the last with usage -> [DONE]

`ChunkWriter` turns events into frames and knows nothing of connections; `EventStream` sends the frames.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog
from msgspec import UNSET, UnsetType
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mezzo.backends.base import BackendFailed, ChoiceFinished, GenerationEvent
from mezzo.metering.idempotency import KeptAnswer
from mezzo.prompt.output import Piece
from mezzo.protocol.response import ChatCompletionChunk, ChunkChoice, Delta, FinishReason, Usage
from mezzo.server.deltas import DeltaWriter
from mezzo.server.incoming import run_until_disconnect
from mezzo.server.running import NotRecorded, RunningChat
from mezzo.server.terms import ChatTerms

DONE = b"data: [DONE]\n\n"
# With the space: there are clients that cannot read a comment without it.
PING = b": ping\n\n"
PADDING_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"

Padding = Callable[[], str | UnsetType]

_log = structlog.get_logger("mezzo.server")


def random_padding() -> str:
    """Return 1 to 36 characters, so that the size of a chunk does not tell the length of its text."""
    return PADDING_ALPHABET[: 1 + secrets.randbelow(len(PADDING_ALPHABET))]


def no_padding() -> UnsetType:
    """Leave the padding out."""
    return UNSET


class ChunkWriter:
    """Writes the frames of one stream, in order: `opening`, any number of `frames`, perhaps `failure`."""

    def __init__(self, terms: ChatTerms, padding: Padding) -> None:
        self._terms = terms
        self._padding = padding
        self._unfinished = {
            index: DeltaWriter(stream_tool_calls=terms.stream_tool_calls)
            for index in range(terms.num_choices)
        }

    @property
    def is_complete(self) -> bool:
        """Whether every choice has had its finish chunk."""
        return not self._unfinished

    def opening(self) -> bytes:
        """Return the role chunk of each choice, and the prefix as the first text."""
        indices = range(self._terms.num_choices)
        frames = [
            self._frame(ChunkChoice(index=i, delta=Delta(role="assistant", content="")), p=UNSET)
            for i in indices
        ]
        if self._terms.prefix:
            frames += [self._delta(i, Delta(content=self._terms.prefix)) for i in indices]
        return b"".join(frames)

    def is_completed_by(self, events: Sequence[GenerationEvent]) -> bool:
        """Tell whether `frames` of these events would give every choice its finish chunk."""
        finished = {event.index for event in events if isinstance(event, ChoiceFinished)}
        return finished >= self._unfinished.keys()

    def frames(self, events: Sequence[GenerationEvent], usage: Usage) -> bytes:
        """Return the chunks of what `events` add: for text, one for each choice that they touch.

        usage: the usage so far; it goes into the chunk that finishes the last choice.
        """
        pieces: dict[int, list[Piece]] = {}
        reasons: dict[int, FinishReason] = {}
        for event in events:
            pieces.setdefault(event.index, []).extend(event.pieces)
            if isinstance(event, ChoiceFinished):
                reasons[event.index] = event.reason
        frames = []
        for index, new in pieces.items():
            writer = self._unfinished[index]
            deltas = writer.deltas(new)
            if index in reasons:
                *deltas, last = writer.last_deltas(deltas, reasons[index])
                frames += [self._delta(index, delta) for delta in deltas]
                frames.append(self._finish(index, last, reasons[index], usage))
            else:
                frames += [self._delta(index, delta) for delta in deltas]
        return b"".join(frames)

    def failure(self, usage: Usage) -> bytes:
        """Return the finish chunks of the choices that will not be continued. Changes nothing."""
        indices = sorted(self._unfinished)
        return b"".join(
            self._end(index, Delta(content=""), "error", usage if index == indices[-1] else UNSET)
            for index in indices
        )

    def _delta(self, index: int, delta: Delta) -> bytes:
        return self._frame(ChunkChoice(index=index, delta=delta), p=self._padding())

    def _finish(self, index: int, delta: Delta, reason: FinishReason, usage: Usage) -> bytes:
        del self._unfinished[index]
        return self._end(index, delta, reason, UNSET if self._unfinished else usage)

    def _end(self, index: int, delta: Delta, reason: FinishReason, usage: Usage | UnsetType = UNSET) -> bytes:
        return self._frame(
            ChunkChoice(index=index, delta=delta, finish_reason=reason), usage=usage, p=self._padding()
        )

    def _frame(self, choice: ChunkChoice, *, p: str | UnsetType, usage: Usage | UnsetType = UNSET) -> bytes:
        terms = self._terms
        chunk = ChatCompletionChunk(
            id=terms.id, created=terms.created, model=terms.model, choices=[choice], usage=usage, p=p
        )
        return b"data: " + chunk.to_json() + b"\n\n"


Guard = Callable[[Coroutine[Any, Any, None]], Coroutine[Any, Any, None]]


def unguarded(work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
    """Let work be broken off."""
    return work


class EventStream(Response):
    """Sends the answer of a running chat as it comes, until it ends or the client leaves. Closes the chat."""

    media_type = "text/event-stream"

    def __init__(
        self, chat: RunningChat, *, padding: Padding, keep_alive_s: float, guarded: Guard = unguarded
    ) -> None:
        """guarded: what becomes of the work when the client leaves; as a rule it is broken off."""
        # The second header keeps a proxy from collecting events.
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._chat = chat
        self._writer = ChunkWriter(chat.terms, padding)
        self._keep_alive_s = keep_alive_s
        self._guarded = guarded
        self._sent = bytearray()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await run_until_disconnect(receive, self._guarded(self.send_all(send)))
        except ClientDisconnect:
            return  # there is no status left to tell it with; the chat knows whether it was over
        finally:
            # Also where the work was broken off before it had begun.
            if not self._chat.keeps_answer:
                await self._chat.aclose()

    async def send_all(self, send: Send) -> None:
        """Send everything and close the chat, whatever happens."""
        try:
            await self._send_all(send)
        finally:
            await self._chat.aclose()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await self._send_part(send, self._writer.opening())
        try:
            events = await self._chat.next_events(self._keep_alive_s)
            while not self._writer.is_completed_by(events):
                await self._send_part(send, self._writer.frames(events, self._chat.usage) if events else PING)
                events = await self._chat.next_events(self._keep_alive_s)
            end = await self._recorded_end(events)
        except BackendFailed as failure:
            _log.warning("generation failed", reason=str(failure))
            end = await self._failed_end()
        except Exception:
            _log.exception("unexpected error in a stream")
            end = await self._failed_end()
        await send({"type": "http.response.body", "body": end, "more_body": False})

    async def _recorded_end(self, events: Sequence[GenerationEvent]) -> bytes:
        """Return the last bytes of a good answer, which is in the books before the client can know its end."""
        failure = self._writer.failure(self._chat.usage)
        end = self._writer.frames(events, self._chat.usage) + DONE
        try:
            await self._chat.aclose(self._kept(end) if self._chat.keeps_answer else None)
            await self._chat.settled()
        except NotRecorded:
            return failure + DONE
        return end

    async def _failed_end(self) -> bytes:
        end = self._writer.failure(self._chat.usage) + DONE
        await self._chat.aclose()
        with contextlib.suppress(NotRecorded):  # it costs nothing, and is entered later
            await self._chat.settled()
        return end

    async def _send_part(self, send: Send, body: bytes) -> None:
        if self._chat.keeps_answer:
            self._sent += body
        await send({"type": "http.response.body", "body": body, "more_body": True})

    def _kept(self, end: bytes) -> KeptAnswer:
        headers = {"content-type": self.headers["content-type"]} | self._chat.terms.headers
        return KeptAnswer(self.status_code, headers, bytes(self._sent) + end)
