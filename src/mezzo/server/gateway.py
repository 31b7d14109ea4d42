"""Where caller, model, limits, backend and accounting meet. Nowhere else do they."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Mapping
from datetime import datetime
from typing import Any

import structlog

from mezzo.backends.base import Backend, BackendUnavailable, Generation, WeightsInfo
from mezzo.backends.cards import model_card, model_cards, served_capabilities
from mezzo.catalog.resolve import ModelRetired, Resolution, UnknownModel
from mezzo.metering.limits import LimitExceeded, LimitState
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
from mezzo.server.auth import Caller
from mezzo.server.exchange import Exchange
from mezzo.server.running import RunningChat
from mezzo.server.services import Services
from mezzo.server.terms import ChatTerms, settle_terms
from mezzo.settings import Settings

MAX_LOGGED_NAME = 256
MAX_LOGGED_URI = 64

_log = structlog.get_logger("mezzo.server")


class Gateway:
    """Admits chat requests, keeps sight of those that run, and charges what they used when they end."""

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._services = services
        self._running: set[RunningChat] = set()
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        """Whether the server is on its way down and admits nothing."""
        return self._is_draining

    @property
    def num_running(self) -> int:
        """Chat requests that are admitted and not closed."""
        return len(self._running)

    async def admit(self, caller: Caller, request: ChatCompletionRequest, exchange: Exchange) -> RunningChat:
        """Check a request in the reference's order and hand it to the backend of its model.

        What is returned must be closed by whoever called. Raises: ApiError.
        """
        now = self._services.clock()
        resolution, backend, limits = self._receive(caller, request, exchange, now)
        validate_messages(request.messages, allow_user_after_tool=self._settings.allow_user_after_tool)
        check_features(request, served_capabilities(resolution, backend.info) | {DOCUMENTS})
        terms = settle_terms(request, resolution, request_id=exchange.request_id, now=now)
        async with self._files_for(backend, request) as attachments:
            generation = await _submitted(
                backend,
                backend.submit(
                    request,
                    attachments,
                    request_id=terms.id,
                    temperature=terms.temperature,
                    cache_scope=caller.key_id,
                ),
            )
        if self._settings.log_prompts:
            exchange.prompt = [
                _without_files(message.model_dump(mode="json")) for message in request.messages
            ]
        return self._run(generation, terms, limits, exchange, caller)

    async def admit_fim(
        self, caller: Caller, request: FimCompletionRequest, exchange: Exchange
    ) -> RunningChat:
        """Do with a request to fill in the middle as `admit` does with a chat. Raises: ApiError."""
        now = self._services.clock()
        resolution, backend, limits = self._receive(caller, request, exchange, now)
        if "completion_fim" not in served_capabilities(resolution, backend.info):
            raise InvalidModel(request.model)
        check_fim_features(request)
        terms = settle_terms(request, resolution, request_id=exchange.request_id, now=now)
        generation = await _submitted(
            backend, backend.submit_fim(request, request_id=terms.id, temperature=terms.temperature)
        )
        if self._settings.log_prompts:
            exchange.prompt = {"prompt": request.prompt, "suffix": request.suffix}
        return self._run(generation, terms, limits, exchange, caller)

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

    def _receive(
        self,
        caller: Caller,
        request: ChatCompletionRequest | FimCompletionRequest,
        exchange: Exchange,
        now: datetime,
    ) -> tuple[Resolution, Backend, LimitState]:
        """Find who answers, and count the request against its caller's limits."""
        exchange.model, exchange.is_stream = request.model[:MAX_LOGGED_NAME], request.stream
        if self._is_draining:
            raise ServiceUnavailable
        resolution = self._resolve(request.model, now)
        backend = self._services.router.backend_for(resolution.served_by.id)
        exchange.model_id, exchange.weights = resolution.served_by.id, backend.info.name
        return resolution, backend, self._count(caller, resolution, exchange)

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

    def _count(self, caller: Caller, resolution: Resolution, exchange: Exchange) -> LimitState:
        """Count the request against the caller's limits, which all names of a model share."""
        try:
            return self._services.limiter.admit(caller.key_id, resolution.served_by.id, time.monotonic())
        except LimitExceeded as over:
            exchange.headers |= over.state.headers()
            raise RateLimited(retry_after_s=over.retry_after_s) from None

    def _run(
        self,
        generation: Generation,
        terms: ChatTerms,
        limits: LimitState,
        exchange: Exchange,
        caller: Caller,
    ) -> RunningChat:
        exchange.headers |= limits.headers() | terms.headers

        def close(chat: RunningChat) -> None:
            self._running.discard(chat)
            self._charge(caller, chat)

        chat = RunningChat(
            generation,
            terms,
            exchange,
            self._services.metrics,
            on_close=close,
            keep_text=self._settings.log_prompts,
        )
        self._running.add(chat)
        return chat

    def _charge(self, caller: Caller, chat: RunningChat) -> None:
        """Count what a request used, once, however it ended. Cached tokens are not held against its limit."""
        exchange, model_id = chat.exchange, chat.terms.model_id
        prompt, cached = exchange.num_prompt_tokens, exchange.num_cached_tokens
        completion = exchange.num_completion_tokens
        self._services.metrics.count_tokens(model_id, prompt=prompt, cached=cached, completion=completion)
        cost = prompt - cached + completion
        limits = self._services.limiter.charge(caller.key_id, model_id, cost, time.monotonic())
        # Still in time for a JSON answer; a stream's headers left before its cost was known.
        exchange.headers |= limits.headers(query_cost=cost)


async def _submitted(backend: Backend, submission: Awaitable[Generation]) -> Generation:
    try:
        return await submission
    except BackendUnavailable as unavailable:
        # The reason is for the operator: it may name files and processes.
        _log.warning("backend unavailable", weights=backend.info.name, reason=str(unavailable))
        raise ServiceUnavailable(retry_after_s=unavailable.retry_after_s) from None


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
