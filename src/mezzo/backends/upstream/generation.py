"""One request that an upstream answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from mezzo.backends.base import BackendFailed, BackendUnavailable, GenerationEvent, PredictionCounts
from mezzo.backends.upstream.answer import AnswerReader
from mezzo.backends.upstream.choice import BrokenAnswer
from mezzo.backends.upstream.connection import ChunkStream
from mezzo.protocol.errors import ApiError


class UpstreamGeneration:
    """One request in an upstream.

    Counts are estimates until the upstream has reported its usage: of the prompt by its length, of the answer by the
    events that came.
    """

    def __init__(
        self,
        opening: asyncio.Task[ChunkStream] | ChunkStream,
        reader: AnswerReader,
        *,
        on_end: Callable[[UpstreamGeneration], None],
    ) -> None:
        """opening: the stream, or what opens it. on_end: called once, when nothing runs any more."""
        self._opening = opening if isinstance(opening, asyncio.Task) else None
        self._stream = opening if isinstance(opening, ChunkStream) else None
        self._reader = reader
        self._counts = reader.counts
        self._on_end = on_end
        self._is_closed = False
        self._is_over = False

    @property
    def num_prompt_tokens(self) -> int:
        return self._counts.num_prompt_tokens

    @property
    def num_image_tokens(self) -> int:
        return 0  # a part of the prompt's tokens that no upstream tells

    @property
    def engine_run_id(self) -> str | None:
        return None

    @property
    def num_cached_tokens(self) -> int:
        return self._counts.num_cached_tokens

    @property
    def prediction(self) -> PredictionCounts | None:
        return self._counts.prediction

    @property
    def is_estimated(self) -> bool:
        return self._counts.is_estimated

    async def wait_until_begun(self, timeout_s: float) -> None:
        """Return when the stream is open, or after the timeout. Cancelled, it gives the request up.

        Raises: BackendUnavailable, ApiError, as the upstream answered.
        """
        try:
            if self._opening is not None:
                await asyncio.wait({self._opening}, timeout=timeout_s)
                if self._opening.done():
                    self._stream = self._opening.result()
        except BaseException:
            self._end()
            raise

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        try:
            stream = await self._opened()
            while not self._reader.is_complete and (chunks := await stream.next()):
                for event in self._reader.read(chunks):
                    yield event
                self._reader.raise_fault()
            for event in self._reader.end():
                yield event
            await stream.end()
        except (BrokenAnswer, BackendUnavailable, ApiError) as error:
            for event in self._reader.cut_off():
                yield event
            if not self._is_closed and not self._reader.is_complete:
                raise BackendFailed(str(error)) from error
        finally:
            self._end()

    async def aclose(self) -> None:
        if not self._is_over and not self._reader.is_complete:
            self._is_closed = True
            if self._opening is not None:
                self._opening.cancel()
            if self._stream is not None:
                self._stream.close()

    async def _opened(self) -> ChunkStream:
        if self._stream is None:
            assert self._opening is not None
            # Waited for, not awaited: that it is cancelled must not look as if this reader were.
            await asyncio.wait({self._opening})
            if self._opening.cancelled():
                raise BrokenAnswer("given up")
            self._stream = self._opening.result()
        return self._stream

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._stream is not None:
            self._stream.close()
        elif self._opening is not None:
            self._opening.cancel()
            self._opening.add_done_callback(_close_opened)
        self._on_end(self)


def _close_opened(opening: asyncio.Task[ChunkStream]) -> None:
    """Close what was opened after all, and take note of an error that nobody has asked for."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
