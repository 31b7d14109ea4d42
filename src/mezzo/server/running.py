"""One admitted chat request while it is generated: its events, what it used, and how it ends.

A task of its own reads the generation from admission to end, however slowly the client takes what came. So
times are those of the engine, counts are those of what was generated, and a slow client gets fewer and larger
pieces instead of holding anything up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from msgspec import UNSET, UnsetType

from mezzo.backends.base import BackendFailed, ChoiceFinished, Generation, GenerationEvent, PredictionCounts
from mezzo.metering.idempotency import KeptAnswer
from mezzo.metering.journal import AlreadySettled
from mezzo.metering.records import Usage as RecordedUsage
from mezzo.prompt.output import text_of_pieces
from mezzo.protocol.response import CompletionTokensDetails, Usage
from mezzo.server.exchange import Exchange, Outcome
from mezzo.server.metrics import Metrics
from mezzo.server.terms import ChatTerms
from mezzo.store.group_commit import StoreUnavailable

# After `aclose` a generation still reports what it had produced; this is for one that does not end by itself.
_DRAIN_TIMEOUT_S = 1.0

OnClose = Callable[["RunningChat", KeptAnswer | None], asyncio.Future[None]]

_log = structlog.get_logger("mezzo.server")


class NotRecorded(Exception):
    """The end of a request could not be entered in the books: its client must not take it for a good one."""


@dataclass(slots=True)
class _ChoiceState:
    last_event_s: float | None = None
    finish_reason: str | None = None
    texts: list[str] = field(default_factory=list)


class RunningChat:
    """A request that a backend works on. Whoever holds it calls `aclose`, whatever happens."""

    def __init__(
        self,
        generation: Generation,
        terms: ChatTerms,
        exchange: Exchange,
        metrics: Metrics,
        *,
        on_close: OnClose,
        keep_text: bool,
        keeps_answer: bool = False,
        entered: Callable[[], Awaitable[None]],
    ) -> None:
        """Begin to read `generation`.

        on_close: called once, with the counts final; what it returns ends when they are in the books.
        keep_text: whether the exchange's record wants the text. keeps_answer: whether the answer is kept for retries.
        entered: returns when the request's beginning is in the books.
        """
        self.terms = terms
        self.exchange = exchange
        self._generation = generation
        self._metrics = metrics
        self._on_close = on_close
        self._keep_text = keep_text
        self.keeps_answer = keeps_answer
        self._entered = entered
        self._settling: asyncio.Future[None] | None = None
        self._choices = [_ChoiceState() for _ in range(terms.num_choices)]
        self._events: list[GenerationEvent] = []
        self._news = asyncio.Event()
        self._failure: Exception | None = None
        self._is_closed = False
        self._read_counts()
        self._reader = asyncio.create_task(self._read())

    @property
    def usage(self) -> Usage:
        """What was used until now."""
        return Usage.of(
            prompt_tokens=self.exchange.num_prompt_tokens,
            completion_tokens=self.exchange.num_completion_tokens,
            cached_tokens=self.exchange.num_cached_tokens,
            completion_tokens_details=_details(self.exchange.prediction),
            service_tier="priority" if self.terms.price.service_tier == "priority" else "standard",
        )

    @property
    def record(self) -> RecordedUsage:
        """What was used, as the books have it."""
        exchange, prediction = self.exchange, self.exchange.prediction or PredictionCounts()
        return RecordedUsage(
            prompt_tokens=exchange.num_prompt_tokens,
            cached_tokens=exchange.num_cached_tokens,
            image_tokens=exchange.num_image_tokens,
            completion_tokens=exchange.num_completion_tokens,
            accepted_prediction_tokens=prediction.num_accepted,
            rejected_prediction_tokens=prediction.num_rejected,
            is_estimated=self._generation.is_estimated,
        )

    @property
    def engine_run_id(self) -> str | None:
        """The engine process that worked on it."""
        return self._generation.engine_run_id

    @property
    def is_generated(self) -> bool:
        """Whether the engine has ended every choice, read or not."""
        return all(choice.finish_reason is not None for choice in self._choices)

    async def next_events(self, timeout_s: float | None = None) -> list[GenerationEvent]:
        """Return the events that came since the last call, waiting for the first; none after the timeout.

        Must not be called again when every choice has finished.
        Raises: BackendFailed if the work broke off, after everything that was generated has been returned.
        """
        await self.wait_for_news(timeout_s)
        if self._events:
            events, self._events = self._events, []
            if self._failure is None:
                self._news.clear()
            return events
        self.raise_failure()
        return []

    async def wait_for_news(self, timeout_s: float | None = None) -> None:
        """Return when `next_events` would not wait, or after the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    def raise_failure(self) -> None:
        """Raise what `next_events` would raise now; do nothing while there are events to read."""
        if self._failure is not None and not self._events:
            raise self._failure

    def break_off(self, reason: str) -> None:
        """End the work from our side: whoever reads gets BackendFailed. Nothing to do if all is generated."""
        if self._failure is None and not self.is_generated:
            self._fail(BackendFailed(reason))

    async def aclose(self, answer: KeptAnswer | None = None) -> None:
        """Stop the work if it is not over, and settle the counts. Safe to call twice.

        answer: what the client gets, if it is to be kept for retries.
        """
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self._generation.aclose()
            await asyncio.wait({self._reader}, timeout=_DRAIN_TIMEOUT_S)
        finally:
            # No waiting from here on, so that a second cancellation cannot lose the counts.
            self._reader.cancel()
            self._settle(answer)

    async def entered(self) -> None:
        """Return when the request is in the books: before that nothing of its answer is sent. Raises: BackendFailed."""
        try:
            await self._entered()
        except StoreUnavailable as fault:
            failure = BackendFailed("the books cannot be written")
            self._fail(failure)
            raise failure from fault

    async def settled(self) -> None:
        """Return when the end is in the books, where a power cut cannot reach it. Raises: NotRecorded."""
        assert self._settling is not None, "the chat is not closed"
        try:
            with self.exchange.timed("settle"):
                await asyncio.shield(self._settling)
        except (StoreUnavailable, AlreadySettled) as fault:
            self.exchange.outcome = "failed"
            _log.error("a request could not be entered in the books", reason=str(fault))
            raise NotRecorded from fault

    async def _read(self) -> None:
        try:
            async for event in self._generation:
                self._note(event)
            if not self.is_generated:
                self._fail(BackendFailed("the generation ended before its choices did"))
        except BackendFailed as failure:
            self._fail(failure)
        except Exception as fault:
            _log.exception("unexpected error of a backend")
            self._fail(fault)

    def _fail(self, failure: Exception) -> None:
        """Note the first failure; how a generation ends after it was closed is no failure."""
        if self._failure is None and not self._is_closed:
            self._failure = failure
            self._news.set()

    def _note(self, event: GenerationEvent) -> None:
        now_s = time.perf_counter()
        exchange, choice = self.exchange, self._choices[event.index]
        model_id = self.terms.model_id
        if event.num_tokens:
            if exchange.ttft_s is None:
                exchange.ttft_s = now_s - exchange.started_s
                self._metrics.observe_first_token(model_id, exchange.ttft_s)
            if choice.last_event_s is not None:
                self._metrics.observe_gap(model_id, (now_s - choice.last_event_s) / event.num_tokens)
            choice.last_event_s = now_s
            exchange.num_completion_tokens += event.num_tokens
        self._read_counts()
        if self._keep_text:
            choice.texts.append(text_of_pieces(event.pieces))
        if isinstance(event, ChoiceFinished):
            choice.finish_reason = event.reason
        if self._failure is None and (event.pieces or isinstance(event, ChoiceFinished)):
            self._events.append(event)
            self._news.set()

    def _read_counts(self) -> None:
        """Note what the generation says by now; the events themselves tell the completion tokens."""
        exchange, generation = self.exchange, self._generation
        exchange.num_prompt_tokens = generation.num_prompt_tokens
        exchange.num_image_tokens = generation.num_image_tokens
        exchange.num_cached_tokens = generation.num_cached_tokens
        exchange.prediction = generation.prediction
        exchange.is_estimated = generation.is_estimated

    def _settle(self, answer: KeptAnswer | None) -> None:
        self._read_counts()
        self.exchange.outcome = self._outcome()
        if self._keep_text:
            self.exchange.completion = ["".join(choice.texts) for choice in self._choices]
        self._settling = self._on_close(self, answer)

    def _outcome(self) -> Outcome:
        """Judge by what the engine said, never by the state of a socket."""
        if self._failure is not None or any(choice.finish_reason == "error" for choice in self._choices):
            return "failed"
        return "finished" if self.is_generated else "aborted"


def _details(prediction: PredictionCounts | None) -> CompletionTokensDetails | UnsetType:
    if prediction is None:
        return UNSET
    return CompletionTokensDetails(
        accepted_prediction_tokens=prediction.num_accepted, rejected_prediction_tokens=prediction.num_rejected
    )
