"""The backend of one machine: prompt encoding here, the engine in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from mezzo.backends.base import (
    BackendFailed,
    BackendStats,
    BackendUnavailable,
    ChoiceFinished,
    GenerationEvent,
    TextDelta,
    WeightsInfo,
)
from mezzo.engine.client import EngineClient, EngineDied, EngineFull, EngineStream, EngineUnavailable, State
from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.messages import AddRequest, SequenceOutput
from mezzo.engine.sampling_params import SamplingParams
from mezzo.model.config import ModelConfig
from mezzo.prompt.load import load_encoder
from mezzo.prompt.parts import NO_ATTACHMENTS
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import ContextOverflow, InvalidArguments
from mezzo.settings import Settings
from mezzo.weights.folder import CheckpointFolder

# Characters of messages above which encoding leaves the event loop: about a millisecond of tokenizer.
_ENCODE_INLINE_CHARS = 5_000


def make_embedded_backend(
    folder: CheckpointFolder,
    settings: Settings,
    *,
    on_loading: Callable[[int, int], None] = lambda loaded, total: None,
) -> EmbeddedBackend:
    """Make the backend of a checkpoint folder; its engine process is running, and importing, when this returns.

    Raises: UnsupportedCheckpoint, UnsupportedTokenizer.
    """
    config = EngineConfig(
        folder=str(folder.path),
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        max_num_seqs=settings.max_num_seqs,
        max_step_tokens=settings.max_step_tokens,
        kv_cache_tokens=settings.kv_cache_tokens,
        block_size=settings.block_size,
    )
    client = EngineClient(
        config,
        max_queue=settings.max_queue,
        start_timeout_s=settings.engine_start_timeout_s,
        on_loading=on_loading,
    )
    client.spawn()
    return EmbeddedBackend(folder, client)


class EmbeddedBackend:
    """One set of weights, served by one engine process."""

    def __init__(self, folder: CheckpointFolder, client: EngineClient) -> None:
        self._folder = folder
        self._client = client
        self._model_config = ModelConfig.from_folder(Path(folder.path))
        self._encoder = load_encoder(Path(folder.path))

    @property
    def is_ready(self) -> bool:
        return self._client.state is State.READY

    @property
    def info(self) -> WeightsInfo:
        ready = self._client.ready
        return WeightsInfo(
            name=self._folder.name,
            description=f"{self._folder.description} in {ready.dtype}" if ready else self._folder.description,
            max_context_length=ready.max_context_length if ready else self._model_config.max_seq_len,
        )

    @property
    def engine(self) -> EngineClient:
        """The engine's client, for what is no part of answering requests: process id, load figures."""
        return self._client

    def stats(self) -> BackendStats:
        stats = self._client.stats
        ready = self._client.ready
        num_blocks = ready.num_blocks if ready else 0
        return BackendStats(
            num_running=stats.num_running if stats else 0,
            num_waiting=stats.num_waiting if stats else 0,
            num_blocks=num_blocks,
            num_free_blocks=stats.num_free_blocks if stats else num_blocks,
            num_preemptions=stats.num_preemptions if stats else 0,
            num_restarts=self._client.num_restarts,
        )

    async def start(self) -> None:
        vocabulary = Vocabulary(
            token_bytes=self._encoder.token_bytes(), eos_token_ids=self._encoder.eos_token_ids
        )
        try:
            await self._client.start(vocabulary)
        except EngineUnavailable as error:
            raise BackendUnavailable(str(error)) from error

    async def stop(self) -> None:
        await self._client.stop()

    async def submit(
        self, request: ChatCompletionRequest, *, request_id: str, temperature: float
    ) -> EmbeddedGeneration:
        if _num_chars(request) > _ENCODE_INLINE_CHARS:
            prompt = await asyncio.to_thread(self._encoder.encode, request, NO_ATTACHMENTS)
        else:
            prompt = self._encoder.encode(request, NO_ATTACHMENTS)
        token_ids = prompt.token_ids
        self._check_length(len(token_ids), request.max_tokens)
        params = SamplingParams(
            temperature=temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=request.random_seed,
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
            max_tokens=request.max_tokens,
            stop=request.stop_strings,
        )
        message = AddRequest(
            request_id=request_id, prompt_token_ids=token_ids, params=params, n=request.num_choices
        )
        try:
            stream = await self._client.submit(message)
        except (EngineFull, EngineUnavailable) as error:
            raise BackendUnavailable(str(error)) from error
        return EmbeddedGeneration(self._client, stream, len(token_ids))

    def _check_length(self, num_prompt: int, max_tokens: int | None) -> None:
        """Refuse what does not fit: nothing is ever cut. At least one token must have room."""
        longest = self.info.max_context_length
        if num_prompt >= longest:
            raise ContextOverflow(num_prompt, longest)
        if max_tokens is not None and num_prompt + max_tokens > longest:
            raise InvalidArguments(
                f"Prompt contains {num_prompt} tokens and max_tokens is {max_tokens}, together too large for model "
                f"with {longest} maximum context length",
                param="max_tokens",
            )


class EmbeddedGeneration:
    """One request in the engine."""

    def __init__(self, client: EngineClient, stream: EngineStream, num_prompt_tokens: int) -> None:
        self._client = client
        self._stream = stream
        self.num_prompt_tokens = num_prompt_tokens
        self.num_cached_tokens = 0  # nothing is reused between requests yet

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        try:
            async for outputs in self._stream:
                for output in outputs:
                    yield _event(output)
        except EngineDied as error:
            raise BackendFailed("the engine process died") from error

    async def aclose(self) -> None:
        self._client.abort(self._stream.request.request_id)


def _event(output: SequenceOutput) -> GenerationEvent:
    # Nobody waits for the end of what was aborted; its last tokens still count.
    if output.finish_reason is None or output.finish_reason == "abort":
        return TextDelta(output.index, output.text, output.num_tokens)
    return ChoiceFinished(output.index, output.text, output.num_tokens, output.finish_reason)


def _num_chars(request: ChatCompletionRequest) -> int:
    total = 0
    for message in request.messages:
        content = message.content
        if isinstance(content, str):
            total += len(content)
        elif content:
            total += sum(len(getattr(chunk, "text", "")) for chunk in content)
    return total
