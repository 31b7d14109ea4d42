"""Where caller, model, limits, backend and accounting meet. Nowhere else do they."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from mezzo.accounts.access import Access, RateLimits
from mezzo.backends.base import Backend, BackendUnavailable, Generation, WeightsInfo
from mezzo.backends.cards import model_card, model_cards, served_capabilities
from mezzo.catalog.resolve import ModelRetired, Resolution, UnknownModel
from mezzo.metering.idempotency import Claim, KeptAnswer
from mezzo.metering.limits import LimitExceeded, has_limit
from mezzo.metering.prices import Price, PriceNotFound
from mezzo.metering.records import Status, Usage
from mezzo.prompt.features import DOCUMENTS, check_features, check_fim_features
from mezzo.prompt.parts import NO_ATTACHMENTS, Attachments
from mezzo.prompt.validate import validate_messages
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import (
    InvalidModel,
    NotFound,
    RateLimited,
    RetiredModel,
    ServiceUnavailable,
)
from mezzo.protocol.fim import FimCompletionRequest
from mezzo.protocol.models import ModelCard, ModelList
from mezzo.server.admission import Admission
from mezzo.server.exchange import Exchange
from mezzo.server.running import RunningChat
from mezzo.server.services import Services, default_limits
from mezzo.server.terms import ChatTerms, settle_terms
from mezzo.settings import Settings

MAX_LOGGED_NAME = 256
MAX_LOGGED_URI = 64

_log = structlog.get_logger("mezzo.server")


# How the exchange calls an end, and how the books do. A request that was refused is never in them.
_STATUS_OF: dict[str, Status] = {"finished": "finished", "aborted": "aborted", "failed": "failed"}
NOTHING_USED = Usage()


@dataclass(frozen=True, slots=True)
class _Settled:
    """What stands before a request is looked at closer: when it came, who answers it, within which limits."""

    now: datetime
    resolution: Resolution
    backend: Backend
    limits: RateLimits


class Gateway:
    """Admits requests, keeps sight of those that run, and enters in the books what they used when they end."""

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._services = services
        self._default_limits = default_limits(settings)
        self._running: set[RunningChat] = set()
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        """Whether the server is on its way down and admits nothing."""
        return self._is_draining

    @property
    def num_running(self) -> int:
        """Requests that are admitted and not closed."""
        return len(self._running)

    async def admit(
        self, access: Access, request: ChatCompletionRequest, exchange: Exchange, claim: Claim | None
    ) -> RunningChat:
        """Check a request in the reference's order and hand it to the backend of its model.

        claim: of its idempotency key. What is returned must be closed by whoever called.
        Raises: ApiError; metering.journal.KeyTaken if another call with the key came first.
        """
        settled = await self._receive(access, request, exchange)
        validate_messages(request.messages, allow_user_after_tool=self._settings.allow_user_after_tool)
        check_features(request, served_capabilities(settled.resolution, settled.backend.info) | {DOCUMENTS})
        terms, admission = self._prepare(access, request, exchange, settled, claim)
        async with self._files_for(settled.backend, request) as attachments:
            submission = settled.backend.submit(
                request,
                attachments,
                request_id=terms.id,
                temperature=terms.temperature,
                cache_scope=access.workspace,
                approve=admission.approve,
            )
            generation = await _submitted(settled.backend, submission, admission)
            chat = self._run(generation, terms, admission, access, settled, exchange)
            if self._settings.log_prompts:
                exchange.prompt = [
                    _without_files(message.model_dump(mode="json")) for message in request.messages
                ]
        return chat

    async def admit_fim(
        self, access: Access, request: FimCompletionRequest, exchange: Exchange, claim: Claim | None
    ) -> RunningChat:
        """Do with a request to fill in the middle as `admit` does with a chat. Raises: as `admit`."""
        settled = await self._receive(access, request, exchange)
        if "completion_fim" not in served_capabilities(settled.resolution, settled.backend.info):
            raise InvalidModel(request.model)
        check_fim_features(request)
        terms, admission = self._prepare(access, request, exchange, settled, claim)
        submission = settled.backend.submit_fim(
            request,
            request_id=terms.id,
            temperature=terms.temperature,
            cache_scope=access.workspace,
            approve=admission.approve,
        )
        generation = await _submitted(settled.backend, submission, admission)
        if self._settings.log_prompts:
            exchange.prompt = {"prompt": request.prompt, "suffix": request.suffix}
        return self._run(generation, terms, admission, access, settled, exchange)

    def drain(self) -> None:
        """Admit nothing from now on; what runs goes on."""
        self._is_draining = True

    def break_off_running(self) -> None:
        """End every running request as a failure, which its client is told."""
        for chat in list(self._running):
            chat.break_off("the server is shutting down")

    def list_models(self) -> ModelList:
        """Return a card for every name that a request may use."""
        return ModelList(
            data=model_cards(
                self._services.catalog,
                self._weights(),
                strict=self._settings.strict_lifecycle,
                now=self._services.clock(),
            )
        )

    def find_model(self, name: str) -> ModelCard:
        """Return the card of one name. Raises: NotFound, also for retired names in strict mode."""
        try:
            return model_card(
                self._services.catalog,
                name,
                self._weights(),
                strict=self._settings.strict_lifecycle,
                now=self._services.clock(),
            )
        except (UnknownModel, ModelRetired):
            raise NotFound(f"Model {name} not found") from None

    def _weights(self) -> Mapping[str, WeightsInfo]:
        return {model_id: backend.info for model_id, backend in self._services.router.by_model_id.items()}

    def _files_for(
        self, backend: Backend, request: ChatCompletionRequest
    ) -> contextlib.AbstractAsyncContextManager[Attachments]:
        if backend.wants_files:
            return self._services.attachments.loaded(request)
        return contextlib.nullcontext(NO_ATTACHMENTS)

    async def _receive(
        self, access: Access, request: ChatCompletionRequest | FimCompletionRequest, exchange: Exchange
    ) -> _Settled:
        """Find who answers, and count the request against the limits of its workspace."""
        exchange.model, exchange.is_stream = request.model[:MAX_LOGGED_NAME], request.stream
        if self._is_draining:
            raise ServiceUnavailable
        now = self._services.clock()
        resolution = self._resolve(request.model, now)
        backend = self._services.router.backend_for(resolution.served_by.id)
        exchange.model_id, exchange.weights = resolution.served_by.id, backend.info.name
        limits = access.rate_limits_of(resolution.served_by.id, self._default_limits)
        with exchange.timed("limits"):
            await self._count(access, resolution, limits, exchange)
        return _Settled(now, resolution, backend, limits)

    def _resolve(self, name: str, now: datetime) -> Resolution:
        served = self._services.router.by_model_id.keys()
        try:
            return self._services.catalog.resolve(
                name, served=served, strict=self._settings.strict_lifecycle, now=now
            )
        except UnknownModel:
            raise InvalidModel(name) from None
        except ModelRetired as retired:
            raise RetiredModel(name, retired.replacement) from None

    async def _count(
        self, access: Access, resolution: Resolution, limits: RateLimits, exchange: Exchange
    ) -> None:
        """Count the request against its workspace's limits, which all names of a model share."""
        try:
            state = await self._services.limiter.admit(access.workspace, resolution.served_by.id, limits)
        except LimitExceeded as over:
            exchange.headers |= over.state.headers()
            raise RateLimited(retry_after_s=over.retry_after_s) from None
        exchange.limit_headers = state.headers()

    def _prepare(
        self,
        access: Access,
        request: ChatCompletionRequest | FimCompletionRequest,
        exchange: Exchange,
        settled: _Settled,
        claim: Claim | None,
    ) -> tuple[ChatTerms, Admission]:
        wants_priority = getattr(request, "service_tier", None) == "auto" and access.has_priority
        terms = settle_terms(
            request,
            settled.resolution,
            request_id=exchange.request_id,
            price=self._price(settled, wants_priority=wants_priority),
            now=settled.now,
        )
        admission = Admission(
            self._services.books,
            self._services.queues.of(settled.backend),
            exchange,
            access,
            terms,
            claim=claim,
            limits=settled.limits,
            now=settled.now,
            engine_run_id=lambda: next(
                (counts.run_id for counts in reversed(settled.backend.engine_counts())), None
            ),
        )
        return terms, admission

    def _price(self, settled: _Settled, *, wants_priority: bool) -> Price:
        """Return the price that holds now. A model without one for the priority tier is served in the standard one."""
        find, model_id = self._services.prices.find, settled.resolution.served_by.id
        try:
            if wants_priority:
                with contextlib.suppress(PriceNotFound):
                    return find(model_id, "priority", settled.now)
            return find(model_id, "standard", settled.now)
        except PriceNotFound as fault:
            _log.error("refused: no price", reason=str(fault))
            raise ServiceUnavailable from None

    def _run(
        self,
        generation: Generation,
        terms: ChatTerms,
        admission: Admission,
        access: Access,
        settled: _Settled,
        exchange: Exchange,
    ) -> RunningChat:
        exchange.headers |= exchange.limit_headers | terms.headers

        def close(chat: RunningChat, answer: KeptAnswer | None) -> asyncio.Future[None]:
            self._running.discard(chat)
            return self._charge(chat, answer, admission, access, settled.limits)

        chat = RunningChat(
            generation,
            terms,
            exchange,
            self._services.metrics,
            on_close=close,
            keep_text=self._settings.log_prompts,
            keeps_answer=admission.claim is not None,
            entered=admission.entered,
        )
        self._running.add(chat)
        return chat

    def _charge(
        self,
        chat: RunningChat,
        answer: KeptAnswer | None,
        admission: Admission,
        access: Access,
        limits: RateLimits,
    ) -> asyncio.Future[None]:
        """Enter what a request used, once, however it ended. What is returned ends when it is in the books."""
        exchange, usage, model_id = chat.exchange, chat.record, chat.terms.model_id
        self._services.metrics.count_tokens(
            model_id,
            prompt=usage.prompt_tokens,
            cached=usage.cached_tokens,
            completion=usage.completion_tokens,
        )
        entered = admission.settle(
            _STATUS_OF[exchange.outcome or "failed"], usage, engine_run_id=chat.engine_run_id, answer=answer
        )
        # Cached tokens are not held against the limit.
        cost = usage.prompt_tokens - usage.cached_tokens + usage.completion_tokens
        if not has_limit(limits) and entered is not None:
            return entered

        async def finish() -> None:
            state = await self._services.limiter.charge(access.workspace, model_id, limits, cost)
            # Still in time for a JSON answer; a stream's headers left before its cost was known.
            exchange.headers |= state.headers(query_cost=cost)
            if entered is not None:
                await asyncio.shield(entered)

        task = asyncio.create_task(finish())
        task.add_done_callback(_see_failure)
        return task


async def _submitted(backend: Backend, submission: Awaitable[Generation], admission: Admission) -> Generation:
    """Return the generation; whatever keeps it from beginning ends the request in the books."""
    try:
        return await submission
    except BackendUnavailable as unavailable:
        admission.settle("failed", NOTHING_USED)
        # The reason is for the operator: it may name files and processes.
        _log.warning("backend unavailable", weights=backend.info.name, reason=str(unavailable))
        raise ServiceUnavailable(retry_after_s=unavailable.retry_after_s) from None
    except asyncio.CancelledError:
        admission.settle("aborted", NOTHING_USED)
        raise
    except BaseException:
        admission.settle("failed", NOTHING_USED)
        raise


def _see_failure(task: asyncio.Task[None]) -> None:
    """Whoever waits for the books hears of a failure; where nobody does, the client has left."""
    if not task.cancelled():
        task.exception()


def _without_files(value: Any) -> Any:
    """Return a message for the log, with what `data:` URIs carry cut off: a prompt is logged, files are not."""
    if isinstance(value, str):
        return (
            value[:MAX_LOGGED_URI] + "…"
            if value.startswith("data:") and len(value) > MAX_LOGGED_URI
            else value
        )
    if isinstance(value, dict):
        return {name: _without_files(item) for name, item in value.items()}
    return [_without_files(item) for item in value] if isinstance(value, list) else value
