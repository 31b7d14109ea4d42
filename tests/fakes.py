"""Fakes behind the protocols of mezzo, honest enough that a test which passes on them says something."""

from __future__ import annotations

import asyncio
import codecs
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mezzo.backends.base import (
    Approve,
    BackendFailed,
    BackendStats,
    BackendUnavailable,
    ChoiceDelta,
    ChoiceFinished,
    EngineCounts,
    FinishReason,
    GenerationEvent,
    WeightsInfo,
)
from mezzo.kit.ids import new_uuid
from mezzo.prompt.output import Piece, TextPiece
from mezzo.prompt.parts import NO_ATTACHMENTS, Attachments
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import ContextOverflow
from mezzo.protocol.fim import FimCompletionRequest


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a FakeBackend does with the next requests.

    text             the answer of every choice; one token is one byte of its UTF-8
    step_tokens      tokens of each choice in one step
    step_s           how long a step takes, the first one too
    fail_at_step     the engine dies in this step (0 is the first)
    fault_at_step    a mistake in our own code shows in this step
    finish_reason    of choices that come to the end of the text
    refusal          raised by `submit` instead of admitting
    submit_s         how long `submit` takes
    cached_tokens    prompt tokens found in the cache
    """

    text: str = "Hello!"
    step_tokens: int = 1
    step_s: float = 0.0
    fail_at_step: int | None = None
    fault_at_step: int | None = None
    finish_reason: FinishReason = "stop"
    refusal: Exception | None = None
    submit_s: float = 0.0
    cached_tokens: int = 0


class FakeBackend:
    """Answers with a script, byte by byte, under the rules of `Backend`.

    generations   every admitted request, for tests to look at from another thread
    """

    wants_files = True

    def __init__(
        self,
        script: Script | None = None,
        *,
        name: str = "fake",
        max_context_length: int = 4096,
        capabilities: frozenset[str] = frozenset({"completion_chat"}),
        start_failure: BackendUnavailable | None = None,
        start_s: float = 0.0,
        max_num_seqs: int = 1000,
    ) -> None:
        self.max_num_seqs = max_num_seqs
        self.run_id = new_uuid()
        self.counts: Counter[str] = Counter()
        self._started_at = datetime.now(UTC)
        self.script = script or Script()
        self.info = WeightsInfo(name, f"{name} weights", max_context_length, capabilities)
        self.is_ready = False
        self.num_starts = 0
        self.num_stops = 0
        self.num_submits = 0
        self.num_cancelled_submits = 0
        self.generations: list[FakeGeneration] = []
        self.temperatures: list[float] = []
        self.attachments: list[Attachments] = []
        self._start_failure = start_failure
        self._start_s = start_s

    async def start(self) -> None:
        self.num_starts += 1
        await asyncio.sleep(self._start_s)
        if self._start_failure is not None:
            raise self._start_failure
        self.is_ready = True

    async def stop(self) -> None:
        self.num_stops += 1
        self.is_ready = False
        for generation in self.generations:
            await generation.aclose()

    def stats(self) -> BackendStats:
        return BackendStats(
            num_running=2, num_waiting=1, num_blocks=10, num_free_blocks=4, num_preemptions=5, num_restarts=3
        )

    def engine_counts(self) -> list[EngineCounts]:
        return [
            EngineCounts(
                run_id=self.run_id,
                weights=self.info.name,
                started_at=self._started_at,
                num_requests=self.counts["requests"],
                prompt_tokens=self.counts["prompt"],
                completion_tokens=self.counts["completion"],
            )
        ]

    async def submit(
        self,
        request: ChatCompletionRequest,
        attachments: Attachments,
        *,
        request_id: str,
        temperature: float,
        cache_scope: str,
        approve: Approve,
    ) -> FakeGeneration:
        self.num_submits += 1
        self.attachments.append(attachments)
        self.temperatures.append(temperature)
        script = self.script
        try:
            await asyncio.sleep(script.submit_s)
        except asyncio.CancelledError:
            self.num_cancelled_submits += 1
            raise
        if script.refusal is not None:
            raise script.refusal
        num_prompt_tokens = sum(len(_text(message.content).encode()) for message in request.messages)
        if num_prompt_tokens >= self.info.max_context_length:
            raise ContextOverflow(num_prompt_tokens, self.info.max_context_length)
        room = self.info.max_context_length - num_prompt_tokens
        longest = room if request.max_tokens is None else min(room, request.max_tokens)
        await approve(num_prompt_tokens, request.num_choices * longest)
        self.counts.update(requests=1, prompt=num_prompt_tokens)
        generation = FakeGeneration(script, request, num_prompt_tokens, room, self.run_id, self.counts)
        self.generations.append(generation)
        return generation

    async def submit_fim(
        self,
        request: FimCompletionRequest,
        *,
        request_id: str,
        temperature: float,
        cache_scope: str,
        approve: Approve,
    ) -> FakeGeneration:
        """Answer as to a message of both texts."""
        chat = ChatCompletionRequest.model_validate(
            {
                "model": request.model,
                "messages": [{"role": "user", "content": request.prompt + (request.suffix or "")}],
                "max_tokens": request.max_tokens,
                "stop": request.stop,
            }
        )
        return await self.submit(
            chat,
            NO_ATTACHMENTS,
            request_id=request_id,
            temperature=temperature,
            cache_scope=cache_scope,
            approve=approve,
        )


@dataclass
class _Choice:
    decoder: codecs.IncrementalDecoder = field(default_factory=codecs.getincrementaldecoder("utf-8"))
    num_tokens: int = 0
    is_finished: bool = False


class FakeGeneration:
    """One admitted request.

    closed_early   set when `aclose` came before the end: the client left, or the server stops
    num_tokens     completion tokens produced, reported or not
    """

    def __init__(
        self,
        script: Script,
        request: ChatCompletionRequest,
        num_prompt_tokens: int,
        room: int,
        engine_run_id: str,
        counts: Counter[str],
    ) -> None:
        self._counts = counts
        self.num_prompt_tokens = num_prompt_tokens
        self.num_image_tokens = 0
        self.engine_run_id = engine_run_id
        self.is_estimated = False
        self.num_cached_tokens = 0
        self.prediction = None
        self.num_steps = 0
        self.closed_early = threading.Event()
        self._script = script
        self._bytes = script.text.encode()
        self._limit = room if request.max_tokens is None else min(room, request.max_tokens)
        self._limit_reason: FinishReason = "model_length" if self._limit == room else "length"
        self._choices = [_Choice() for _ in range(request.num_choices)]
        self._closing = asyncio.Event()
        self._is_over = False

    @property
    def num_tokens(self) -> int:
        return sum(choice.num_tokens for choice in self._choices)

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        try:
            while not self._is_over and not await self._closed_during_step():
                if self.num_steps == self._script.fail_at_step:
                    raise BackendFailed("the engine died")
                if self.num_steps == self._script.fault_at_step:
                    raise ZeroDivisionError("secret detail")
                self.num_steps += 1
                self.num_cached_tokens = self._script.cached_tokens
                for index, choice in enumerate(self._choices):
                    if not choice.is_finished:
                        yield self._advance(index, choice)
                self._is_over = all(choice.is_finished for choice in self._choices)
        finally:
            self._is_over = True

    async def aclose(self) -> None:
        if not self._is_over:
            self._closing.set()
            self.closed_early.set()

    async def _closed_during_step(self) -> bool:
        if self._script.step_s == 0:
            await asyncio.sleep(0)
            return self._closing.is_set()
        try:
            await asyncio.wait_for(self._closing.wait(), self._script.step_s)
        except TimeoutError:
            return False
        return True

    def _advance(self, index: int, choice: _Choice) -> GenerationEvent:
        end = min(choice.num_tokens + self._script.step_tokens, self._limit)
        piece = self._bytes[choice.num_tokens : end]
        is_last = choice.num_tokens + len(piece) >= len(self._bytes)
        is_cut = not is_last and end == self._limit
        choice.num_tokens += len(piece)
        self._counts["completion"] += len(piece)
        # A character that the limit cut is dropped: text is whole characters only.
        text = choice.decoder.decode(piece)
        if not is_last and not is_cut:
            return delta(index, text, len(piece))
        choice.is_finished = True
        return finished(index, text, len(piece), self._limit_reason if is_cut else self._script.finish_reason)


def delta(index: int, text: str, num_tokens: int) -> ChoiceDelta:
    """Return an event that adds text."""
    return ChoiceDelta(index, _pieces(text), num_tokens)


def finished(index: int, text: str, num_tokens: int, reason: FinishReason) -> ChoiceFinished:
    """Return the last event of a choice, which adds text."""
    return ChoiceFinished(index, _pieces(text), num_tokens, reason)


def _pieces(text: str) -> tuple[Piece, ...]:
    return (TextPiece(text),) if text else ()


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    return "".join(getattr(chunk, "text", "") for chunk in content) if isinstance(content, list) else ""
