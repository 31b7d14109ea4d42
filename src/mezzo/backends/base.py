"""What the server needs of anything that can answer a chat request.

A backend is handed a request that fits the wire schema and whose message order was checked. `submit`
encodes and admits it, or raises; the `Generation` it returns is then read to its end, or closed early.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from mezzo.prompt.output import Piece
from mezzo.prompt.parts import Attachments
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.fim import FimCompletionRequest
from mezzo.protocol.response import FinishReason


@dataclass(frozen=True)
class WeightsInfo:
    """What a backend really serves; cards never promise more than this.

    name                 what the operator configured, e.g. `nano`
    description          one line for people, e.g. `SmolLM2-135M-Instruct (float32)`
    max_context_length   tokens of prompt and completion together
    capabilities         the wire's capability names that these weights hold, e.g. `completion_chat`
    """

    name: str
    description: str
    max_context_length: int
    capabilities: frozenset[str] = field(default_factory=lambda: frozenset({"completion_chat"}))


@dataclass(frozen=True, kw_only=True)
class BackendStats:
    """Gauges of the moment and counts since the start, for metrics.

    num_running, num_waiting          sequences in the batch, and queued for a place in it
    num_blocks, num_free_blocks       of the KV cache
    num_preemptions, num_restarts     sequences that gave their blocks back; engine processes that died
    num_draft_tokens, num_accepted_tokens
                                      tokens that were guessed, and those of them that were right
    num_image_hits, num_image_misses  images whose encoding was there already, and that were encoded
    num_prefix_hits, num_prefix_misses
                                      requests whose prompts began with what was in the cache, and those whose did not
    num_cached_tokens                 tokens of prompts that were there
    """

    num_running: int = 0
    num_waiting: int = 0
    num_blocks: int = 0
    num_free_blocks: int = 0
    num_preemptions: int = 0
    num_restarts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_image_hits: int = 0
    num_image_misses: int = 0
    num_prefix_hits: int = 0
    num_prefix_misses: int = 0
    num_cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCounts:
    """The counts of one engine process since its start, by itself; they only grow.

    run_id                        names the process
    num_requests, prompt_tokens   requests that it accepted, and the tokens of their prompts
    completion_tokens             tokens that it produced
    """

    run_id: str
    weights: str
    started_at: datetime
    num_requests: int
    prompt_tokens: int
    completion_tokens: int


Approve = Callable[[int, int], Awaitable[None]]
"""Awaited with the most prompt tokens and the most completion tokens (over all choices) that a request can use, when
both are known and before any work is done for it. What it raises ends the submission."""


@dataclass(slots=True)
class PredictionCounts:
    """Tokens of a request's prediction that were tried: those that were the answer's, and those that were not."""

    num_accepted: int = 0
    num_rejected: int = 0


@dataclass(frozen=True, slots=True)
class ChoiceDelta:
    """What was produced for choice `index`: pieces of text, thinking and tool calls, possibly none.

    num_tokens: completion tokens counted since the previous event of this choice.
    """

    index: int
    pieces: tuple[Piece, ...]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class ChoiceFinished:
    """The one terminal event of choice `index`. `pieces` and `num_tokens` as in ChoiceDelta."""

    index: int
    pieces: tuple[Piece, ...]
    num_tokens: int
    reason: FinishReason


GenerationEvent = ChoiceDelta | ChoiceFinished


class Generation(Protocol):
    """One admitted request. Iterate to the end, or call `aclose` to stop the work within one step."""

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the rendered prompt, template included; counted once however many choices.

        Read it late: who does not encode prompts itself estimates until it is told.
        """

    @property
    def num_image_tokens(self) -> int:
        """Prompt tokens that stand for images."""

    @property
    def engine_run_id(self) -> str | None:
        """The engine process that works on it, None where there is none of ours."""

    @property
    def is_estimated(self) -> bool:
        """Whether the counts are guesses, because whoever generated did not tell."""

    @property
    def num_cached_tokens(self) -> int:
        """Prompt tokens whose keys and values were already in the cache (0 before the first event)."""

    @property
    def prediction(self) -> PredictionCounts | None:
        """What has become of the request's prediction until now; None where it has none."""

    def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        """Yield events until every choice has finished.

        Raises: BackendFailed if the engine died under the request.
        """

    async def aclose(self) -> None:
        """Stop the work for this request; the iteration then ends, after what had been produced until now.

        Does nothing when the request has ended. Never raises.
        """


class BackendFailed(Exception):
    """The machinery under a running request failed; what was generated until then stands."""


class BackendUnavailable(Exception):
    """A request was not admitted: the queue is full, or the backend cannot start. Try again later."""

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Backend(Protocol):
    """A way to serve one set of weights."""

    @property
    def is_ready(self) -> bool:
        """Whether a request would start without waiting for a load or a restart."""

    @property
    def info(self) -> WeightsInfo:
        """Known from the moment the backend is constructed: cards need it before it is ready."""

    @property
    def wants_files(self) -> bool:
        """Whether `submit` needs what images and documents hold; else their URLs are left to whoever answers."""

    @property
    def max_num_seqs(self) -> int:
        """Sequences that it can generate at the same time; further ones wait."""

    def stats(self) -> BackendStats:
        """Return current figures; cheap, no I/O."""

    def engine_counts(self) -> Sequence[EngineCounts]:
        """Return what each engine process of this backend counted, the present one last; cheap, no I/O."""

    async def start(self) -> None:
        """Load and return when ready. Raises: BackendUnavailable with the reason."""

    async def stop(self) -> None:
        """End every generation and every process. Safe to call twice."""

    async def submit(
        self,
        request: ChatCompletionRequest,
        attachments: Attachments,
        *,
        request_id: str,
        temperature: float,
        cache_scope: str,
        approve: Approve,
    ) -> Generation:
        """Admit a request.

        attachments: what its images and documents hold, if the backend `wants_files`.
        temperature: the request's, or the card's default.
        cache_scope: requests of different scopes share nothing that is cached, so that nobody can tell by the time
        an answer takes what others have sent.
        Raises: ApiError of protocol.errors for what the client must change (context overflow, features
        these weights lack); BackendUnavailable for what it must wait for; what `approve` raises.
        """

    async def submit_fim(
        self,
        request: FimCompletionRequest,
        *,
        request_id: str,
        temperature: float,
        cache_scope: str,
        approve: Approve,
    ) -> Generation:
        """Admit a request to fill in the middle; only weights with the capability `completion_fim` are asked.

        Arguments as of `submit`. Raises: as `submit`.
        """
