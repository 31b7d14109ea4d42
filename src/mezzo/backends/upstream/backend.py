"""The backend of a model that another server answers for: any URL with OpenAI's or Mistral's API."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from mezzo.backends.base import Approve, BackendStats, BackendUnavailable, EngineCounts, WeightsInfo
from mezzo.backends.upstream.answer import AnswerReader
from mezzo.backends.upstream.bounds import has_files, prompt_token_bound, prompt_token_estimate
from mezzo.backends.upstream.connection import ChunkStream, UpstreamConnection, UpstreamLost
from mezzo.backends.upstream.counts import TokenCounts
from mezzo.backends.upstream.facts import UpstreamFacts, read_facts
from mezzo.backends.upstream.generation import UpstreamGeneration
from mezzo.backends.upstream.requests import Body, chat_body, fim_body
from mezzo.backends.upstream.urls import UrlRules
from mezzo.prompt.media.addresses import PublicAddresses
from mezzo.prompt.parts import Attachments
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.fim import FimCompletionRequest
from mezzo.settings import Settings
from mezzo.weights.upstream import UpstreamModel

# A stream is opened after this time even if the upstream has not begun: its client is then kept alive by comments.
FIRST_CHUNK_TIMEOUT_S = 5.0
PROBE_INTERVAL_S = 5.0
# About a megabyte of text.
_LONG_PROMPT_TOKENS = 250_000
# What is not listed by the upstream may be anything that a card can promise.
_ALL_CAPABILITIES = frozenset({"completion_chat", "function_calling", "reasoning", "vision"})

_log = structlog.get_logger("mezzo.backends")


def make_upstream_backend(
    upstream: UpstreamModel, settings: Settings, *, max_context_length: int
) -> UpstreamBackend:
    """Make the backend of an upstream; nothing is sent before it is started.

    max_context_length: the catalog's, for an upstream that does not tell its own.
    """
    key = settings.upstream_api_key
    return UpstreamBackend(
        upstream,
        UpstreamConnection(
            upstream.base_url,
            api_key=None if key is None else key.get_secret_value(),
            timeout_s=settings.upstream_timeout_s,
        ),
        UrlRules(PublicAddresses(allowed_hosts=settings.fetch_allowed_hosts), fetching=settings.fetch_urls),
        max_context_length=max_context_length,
        max_requests=settings.upstream_max_requests,
        fills_in=settings.fim,
    )


class UpstreamBackend:
    """One model of one upstream. Answers from its start on, whether the upstream is there yet or not."""

    wants_files = False

    def __init__(
        self,
        upstream: UpstreamModel,
        connection: UpstreamConnection,
        urls: UrlRules,
        *,
        max_context_length: int,
        max_requests: int,
        fills_in: bool = False,
    ) -> None:
        self.max_num_seqs = max_requests
        self._upstream = upstream
        self._connection = connection
        self._urls = urls
        self._max_context_length = max_context_length
        self._fills_in = fills_in
        self._facts = UpstreamFacts()
        self._info = self._make_info()  # asked for several times in a request, so not made each time
        self._is_reachable = False
        self._is_stopped = False
        self._probing: asyncio.Task[None] | None = None
        self._running: set[UpstreamGeneration] = set()

    @property
    def is_ready(self) -> bool:
        return self._is_reachable

    @property
    def info(self) -> WeightsInfo:
        return self._info

    def stats(self) -> BackendStats:
        return BackendStats(num_running=len(self._running))

    def engine_counts(self) -> list[EngineCounts]:
        return []  # the engines are not ours

    async def start(self) -> None:
        self._connection.open()
        await self._look()

    async def stop(self) -> None:
        self._is_stopped = True
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        for generation in list(self._running):
            await generation.aclose()
        await self._connection.close()

    async def submit(
        self,
        request: ChatCompletionRequest,
        attachments: Attachments,
        *,
        request_id: str,
        temperature: float,
        cache_scope: str,
        approve: Approve,
    ) -> UpstreamGeneration:
        """Send a request on. `temperature` and `cache_scope` are not passed on: what a client leaves open is left open.

        Raises: as `Backend.submit`.
        """
        self._urls.check(request)
        body = chat_body(request, model=self._upstream.model, facts=self._facts)
        counts = TokenCounts(
            estimated_prompt_tokens=prompt_token_estimate(request),
            has_prediction=bool(request.prediction.content),
            counts_per_choice=self._facts.counts_in_every_chunk,
        )
        # Mistral's servers begin an answer with the prefix that the request gave it, OpenAI's do not.
        prefix = request.continued_text if self._facts.dialect == "mistral" else ""
        reader = AnswerReader(request.num_choices, counts, prefix=prefix)
        is_long = has_files(request) or counts.num_prompt_tokens > _LONG_PROMPT_TOKENS
        data = await _encoded(body, is_long=is_long)
        await self._approved(approve, request, request.num_choices)
        return await self._begin("/chat/completions", data, reader, request_id, is_stream=request.stream)

    async def submit_fim(
        self,
        request: FimCompletionRequest,
        *,
        request_id: str,
        temperature: float,
        cache_scope: str,
        approve: Approve,
    ) -> UpstreamGeneration:
        """Send a request on, as `submit` does. Raises: as `Backend.submit`."""
        counts = TokenCounts(estimated_prompt_tokens=prompt_token_estimate(request))
        body = fim_body(request, model=self._upstream.model)
        data = await _encoded(body, is_long=counts.num_prompt_tokens > _LONG_PROMPT_TOKENS)
        await self._approved(approve, request, 1)
        return await self._begin(
            "/fim/completions", data, AnswerReader(1, counts), request_id, is_stream=request.stream
        )

    def _make_info(self) -> WeightsInfo:
        facts = self._facts
        unlisted = _ALL_CAPABILITIES | ({"completion_fim"} if self._fills_in else frozenset())
        return WeightsInfo(
            name=self._upstream.name,
            description=self._upstream.description,
            max_context_length=facts.max_context_length or self._max_context_length,
            capabilities=unlisted if facts.capabilities is None else facts.capabilities,
        )

    async def _approved(
        self, approve: Approve, request: ChatCompletionRequest | FimCompletionRequest, num_choices: int
    ) -> None:
        """Ask whether the request may begin, with the most that it can use: nobody here can count its prompt."""
        context = self.info.max_context_length
        limit = context if request.max_tokens is None else min(request.max_tokens, context)
        await approve(min(prompt_token_bound(request), context), num_choices * limit)

    async def _begin(
        self, path: str, body: bytes, reader: AnswerReader, request_id: str, *, is_stream: bool
    ) -> UpstreamGeneration:
        opening = self._open(path, body, request_id)
        if not is_stream:  # whoever waits for one JSON object learns nothing earlier by being admitted
            return self._running_generation(await opening, reader)
        generation = self._running_generation(asyncio.create_task(opening), reader)
        await generation.wait_until_begun(FIRST_CHUNK_TIMEOUT_S)
        return generation

    def _running_generation(
        self, opening: asyncio.Task[ChunkStream] | ChunkStream, reader: AnswerReader
    ) -> UpstreamGeneration:
        generation = UpstreamGeneration(opening, reader, on_end=self._running.discard)
        self._running.add(generation)
        return generation

    async def _open(self, path: str, body: bytes, request_id: str) -> ChunkStream:
        try:
            return await self._connection.stream(path, body, request_id=request_id)
        except UpstreamLost as error:
            self._lose(str(error))
            raise

    async def _look(self) -> bool:
        """Ask the upstream about itself, and return whether it answered."""
        try:
            listed = await self._connection.list_models()
        except BackendUnavailable as error:
            self._lose(str(error))
            return False
        if listed is not None:
            self._facts = read_facts(listed, self._upstream.model)
            self._info = self._make_info()
            if not self._facts.is_listed:
                _log.warning("upstream does not list this model", upstream=self._upstream.name)
        self._is_reachable = True
        return True

    def _lose(self, reason: str) -> None:
        """Take note that the upstream is not there, and ask in the background until it is."""
        self._is_reachable = False
        if not self._is_stopped and (self._probing is None or self._probing.done()):
            _log.warning("upstream not ready", upstream=self._upstream.name, reason=reason)
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        is_there = await self._look()
        while not is_there:
            await asyncio.sleep(PROBE_INTERVAL_S)
            is_there = await self._look()
        _log.info("upstream ready", upstream=self._upstream.name)


async def _encoded(body: Body, *, is_long: bool) -> bytes:
    """Return the body's JSON, written in a thread where it may be long: it takes a millisecond a megabyte."""
    return await asyncio.to_thread(msgspec.json.encode, body) if is_long else msgspec.json.encode(body)
