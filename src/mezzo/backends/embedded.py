"""The backend of one machine: prompt encoding here, the engine in a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from mezzo.backends.base import (
    Approve,
    BackendFailed,
    BackendStats,
    BackendUnavailable,
    ChoiceDelta,
    ChoiceFinished,
    EngineCounts,
    GenerationEvent,
    PredictionCounts,
    WeightsInfo,
)
from mezzo.engine.client import EngineClient, EngineDied, EngineFull, EngineStream, EngineUnavailable, State
from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.grammar_checker import GrammarChecker
from mezzo.engine.grammar_errors import GrammarError, check_beginning
from mezzo.engine.launch import EngineProcess, launch_engine
from mezzo.engine.messages import AddRequest, ImageInput, SequenceOutput
from mezzo.engine.sampling_params import SamplingParams
from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from mezzo.prompt.answer_grammar import AnswerGrammar
from mezzo.prompt.encoder import EncodedPrompt, PlacedImage, PromptEncoder
from mezzo.prompt.load import load_encoder
from mezzo.prompt.media.image_headers import ImageLimits
from mezzo.prompt.output import OutputParser, Piece, PlainParser
from mezzo.prompt.parts import Attachments
from mezzo.prompt.tokenizer import UnsupportedTokenizer
from mezzo.protocol.base import WireModel
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.content import TextChunk, ThinkingChunk
from mezzo.protocol.errors import ContextOverflow, InvalidArguments
from mezzo.protocol.fim import FimCompletionRequest
from mezzo.protocol.response import FinishReason
from mezzo.settings import Settings
from mezzo.weights.folder import CheckpointFolder

# Characters of messages above which encoding leaves the event loop: about a millisecond of tokenizer.
_ENCODE_INLINE_CHARS = 5_000
# Prompts with images that are being encoded: each may need a gigabyte, and must leave threads to the others.
_IMAGE_PROMPTS_AT_ONCE = 2
_MAX_MESSAGE = 200
# What the wire counts in, whatever blocks the engine has.
_CACHED_TOKENS_UNIT = 64


def make_embedded_backend(
    folder: CheckpointFolder,
    settings: Settings,
    *,
    on_loading: Callable[[int, int], None] = lambda loaded, total: None,
    launch: Callable[[], EngineProcess] = launch_engine,
) -> EmbeddedBackend:
    """Make the backend of a checkpoint folder; its engine process is running, and importing, when this returns.

    Raises: BackendUnavailable naming what the checkpoint has that is not supported; mezzo.kit.secrets.MachineKeyError,
    OSError for the installation's secret.
    """
    secret = settings.resolve_secret_key()
    config = EngineConfig(
        folder=str(folder.path),
        device=settings.device,
        dtype=settings.dtype,
        packed_folder=str(settings.home / "packed"),
        threads=settings.threads,
        max_num_seqs=settings.max_num_seqs,
        max_step_tokens=settings.max_step_tokens,
        kv_cache_tokens=settings.kv_cache_tokens,
        block_size=settings.block_size,
        max_draft_tokens=settings.max_draft_tokens,
        image_cache_tokens=settings.image_cache_tokens,
        prefix_cache=settings.prefix_cache,
    )
    client = EngineClient(
        config,
        max_queue=settings.max_queue,
        start_timeout_s=settings.engine_start_timeout_s,
        on_loading=on_loading,
        launch=launch,
    )
    client.spawn()
    from mezzo.kit.sealing import derived_key  # noqa: PLC0415  slow, while the engine process imports too

    try:
        return EmbeddedBackend(
            folder,
            client,
            ImageLimits(max_bytes=settings.max_image_bytes),
            cache_secret=derived_key(secret, "cache scopes"),
            fills_in=settings.fim,
        )
    except (UnsupportedCheckpoint, UnsupportedTokenizer) as error:
        raise BackendUnavailable(f"{folder.name}: {error}") from error


class EmbeddedBackend:
    """One set of weights, served by one engine process."""

    wants_files = True

    def __init__(
        self,
        folder: CheckpointFolder,
        client: EngineClient,
        image_limits: ImageLimits | None = None,
        *,
        cache_secret: bytes,
        fills_in: bool = False,
    ) -> None:
        """Make the backend of a checkpoint whose engine is not loaded yet.

        image_limits   of images that are decoded, None for the defaults
        cache_secret   makes a salt of a cache's scope that nobody else can make
        fills_in       the weights were trained to fill in the middle

        Raises: UnsupportedCheckpoint, UnsupportedTokenizer.
        """
        self._folder = folder
        self._cache_secret = cache_secret
        self._fills_in = fills_in
        self._client = client
        self._model_config = ModelConfig.from_folder(Path(folder.path))
        self._encoder = load_encoder(Path(folder.path), image_limits=image_limits)
        check_agreement(self._model_config, self._encoder)
        self._encoding_images = asyncio.Semaphore(_IMAGE_PROMPTS_AT_ONCE)
        self._grammar_checker = GrammarChecker()

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
            capabilities=self._capabilities,
        )

    @property
    def _capabilities(self) -> frozenset[str]:
        """What prompt format and weights can do together: a format with images is no use without eyes."""
        of_format = self._encoder.capabilities
        missing = {"vision"} if self._model_config.vision is None else set()
        if not self._fills_in:
            missing.add("completion_fim")
        return frozenset({"completion_chat"}) | (of_format - missing)

    @property
    def max_num_seqs(self) -> int:
        return self._client.config.max_num_seqs

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
            num_draft_tokens=stats.num_draft_tokens if stats else 0,
            num_accepted_tokens=stats.num_accepted_tokens if stats else 0,
            num_image_hits=stats.num_image_hits if stats else 0,
            num_image_misses=stats.num_image_misses if stats else 0,
            num_prefix_hits=stats.num_prefix_hits if stats else 0,
            num_prefix_misses=stats.num_prefix_misses if stats else 0,
            num_cached_tokens=stats.num_cached_tokens if stats else 0,
        )

    def engine_counts(self) -> list[EngineCounts]:
        return [
            EngineCounts(
                run_id=run.id,
                weights=self._folder.name,
                started_at=run.started_at,
                num_requests=run.num_requests,
                prompt_tokens=run.num_prompt_tokens,
                completion_tokens=run.num_completion_tokens,
            )
            for run in list(self._client.runs)  # asked from another thread, while a new one may come
        ]

    async def start(self) -> None:
        vocabulary = Vocabulary(
            token_bytes=self._encoder.token_bytes(),
            eos_token_ids=self._encoder.eos_token_ids,
            marker_token_ids=self._encoder.marker_token_ids,
        )
        try:
            await self._client.start(vocabulary)
        except EngineUnavailable as error:
            raise BackendUnavailable(str(error)) from error

    async def stop(self) -> None:
        await self._client.stop()
        self._grammar_checker.stop()

    async def submit(
        self,
        request: ChatCompletionRequest,
        attachments: Attachments,
        *,
        request_id: str,
        temperature: float,
        cache_scope: str,
        approve: Approve,
    ) -> EmbeddedGeneration:
        grammar = await self._grammar(request)
        prompt = await self._encode(request, attachments)
        prediction = await self._prediction(request)
        self._check_length(len(prompt.token_ids), request.max_tokens, len(prediction))
        params = SamplingParams(
            temperature=temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=request.random_seed,
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
            max_tokens=request.max_tokens,
            stop=request.stop_strings,
        )
        salt = self._salt(cache_scope)
        message = AddRequest(
            request_id=request_id,
            prompt_token_ids=prompt.token_ids,
            params=params,
            n=request.num_choices,
            images=await self._image_inputs(prompt.images, salt),
            prediction_token_ids=prediction,
            grammar=grammar.text if grammar is not None else None,
            unique_items=grammar.unique_items if grammar is not None else None,
            begun_with=grammar.begun_with.encode() if grammar is not None else b"",
            cache_salt=salt,
        )
        parsers = [self._encoder.output_parser(request) for _ in range(request.num_choices)]
        await approve(len(prompt.token_ids), self._most_completion_tokens(message))
        return await self._begin(
            message, parsers, prediction=PredictionCounts() if request.prediction.content else None
        )

    async def submit_fim(
        self,
        request: FimCompletionRequest,
        *,
        request_id: str,
        temperature: float,
        cache_scope: str,
        approve: Approve,
    ) -> EmbeddedGeneration:
        suffix = request.suffix or ""
        num_chars = len(request.prompt) + len(suffix)
        prompt = await _encoded(num_chars, self._encoder.encode_fim, request.prompt, suffix)
        self._check_length(len(prompt), request.max_tokens, 0)
        params = SamplingParams(
            temperature=temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=request.random_seed,
            max_tokens=request.max_tokens,
            stop=request.stop_strings,
        )
        message = AddRequest(
            request_id=request_id,
            prompt_token_ids=prompt,
            params=params,
            cache_salt=self._salt(cache_scope),
        )
        await approve(len(prompt), self._most_completion_tokens(message))
        return await self._begin(message, [PlainParser()], prediction=None)

    def _salt(self, cache_scope: str) -> bytes:
        return hashlib.blake2b(cache_scope.encode(), digest_size=32, key=self._cache_secret).digest()

    def _most_completion_tokens(self, message: AddRequest) -> int:
        room = self.info.max_context_length - len(message.prompt_token_ids)
        limit = message.params.max_tokens
        return message.n * (room if limit is None else min(room, limit))

    async def _begin(
        self, message: AddRequest, parsers: list[OutputParser], *, prediction: PredictionCounts | None
    ) -> EmbeddedGeneration:
        try:
            stream = await self._client.submit(message)
        except (EngineFull, EngineUnavailable) as error:
            raise BackendUnavailable(str(error)) from error
        return EmbeddedGeneration(self._client, stream, parsers, prediction=prediction)

    async def _prediction(self, request: ChatCompletionRequest) -> list[int]:
        """Return the tokens that the answer is expected to be, without what a prefix has said already."""
        text = request.prediction.content.removeprefix(request.continued_text)
        return await _encoded(len(text), self._encoder.encode_answer, text)

    async def _grammar(self, request: ChatCompletionRequest) -> AnswerGrammar | None:
        """Return what binds the answer, tried out to see that it can be followed. Raises: InvalidArguments."""
        if request.response_format.type == "text" and not request.functions:
            return None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._grammar_checker.thread, self._checked_grammar, request)

    def _checked_grammar(self, request: ChatCompletionRequest) -> AnswerGrammar | None:
        grammar = self._encoder.answer_grammar(request)
        if grammar is None:
            return None
        try:
            self._grammar_checker.check(grammar.text, grammar.begun_with)
            check_beginning(grammar.begun_with.encode(), grammar.unique_items)
        except GrammarError as error:
            if grammar.fallback is not None:
                return replace(grammar, text=grammar.fallback)
            raise InvalidArguments(
                f"The schema cannot be followed: {str(error)[:_MAX_MESSAGE]}", param=grammar.param
            ) from error
        return grammar

    async def _encode(self, request: ChatCompletionRequest, attachments: Attachments) -> EncodedPrompt:
        if attachments.images:
            async with self._encoding_images:
                return await asyncio.to_thread(self._encode_with_images, request, attachments)
        if attachments.by_position or _num_chars(request) > _ENCODE_INLINE_CHARS:
            return await asyncio.to_thread(self._encoder.encode, request, attachments)
        return self._encoder.encode(request, attachments)

    def _encode_with_images(self, request: ChatCompletionRequest, attachments: Attachments) -> EncodedPrompt:
        self._check_images(attachments)
        return self._encoder.encode(request, attachments)

    def _check_images(self, attachments: Attachments) -> None:
        """Refuse pictures that cannot fit before any of them is decoded, by what their headers say."""
        processor = self._encoder.image_processor
        if processor is None:
            return  # the encoder says whose image it is
        grids = [processor.check(part) for part in attachments.images]
        num_tokens = sum(rows * (columns + 1) for rows, columns in grids)
        if num_tokens >= self.info.max_context_length:
            raise ContextOverflow(num_tokens, self.info.max_context_length)

    @staticmethod
    async def _image_inputs(images: tuple[PlacedImage, ...], salt: bytes) -> tuple[ImageInput, ...]:
        if not images:
            return ()
        return await asyncio.to_thread(lambda: tuple(_image_input(placed, salt) for placed in images))

    def _check_length(self, num_prompt: int, max_tokens: int | None, num_predicted: int) -> None:
        """Refuse what does not fit: nothing is ever cut. At least one token must have room."""
        longest = self.info.max_context_length
        if num_prompt + num_predicted > longest or num_prompt == longest:
            raise ContextOverflow(num_prompt, longest, num_predicted)
        if max_tokens is not None and num_prompt + max_tokens > longest:
            raise InvalidArguments(
                f"Prompt contains {num_prompt} tokens and max_tokens is {max_tokens}, together too large for model "
                f"with {longest} maximum context length",
                param="max_tokens",
            )


class EmbeddedGeneration:
    """One request in the engine."""

    def __init__(
        self,
        client: EngineClient,
        stream: EngineStream,
        parsers: list[OutputParser],
        *,
        prediction: PredictionCounts | None,
    ) -> None:
        self._client = client
        self._stream = stream
        self._parsers = parsers
        self.num_prompt_tokens = len(stream.request.prompt_token_ids)
        self.num_image_tokens = sum(image.num_tokens for image in stream.request.images)
        self.prediction = prediction
        self.num_cached_tokens = 0
        self.is_estimated = False

    @property
    def engine_run_id(self) -> str | None:
        return self._stream.run_id

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        try:
            async for outputs in self._stream:
                for output in outputs:
                    yield self._event(output)
        except EngineDied as error:
            raise BackendFailed("the engine process died") from error

    async def aclose(self) -> None:
        self._client.abort(self._stream.request.request_id)

    def _event(self, output: SequenceOutput) -> GenerationEvent:
        self.num_cached_tokens = output.num_cached_tokens - output.num_cached_tokens % _CACHED_TOKENS_UNIT
        if self.prediction is not None:
            self.prediction.num_accepted += output.num_accepted
            self.prediction.num_rejected += output.num_rejected
        parser = self._parsers[output.index]
        pieces: list[Piece] = parser.feed(output.text, output.marker)
        # Nobody waits for the end of what was aborted; its last tokens still count.
        if output.finish_reason is None or output.finish_reason == "abort":
            return ChoiceDelta(output.index, tuple(pieces), output.num_tokens)
        is_stopped = output.finish_reason == "stop_string"
        reason: FinishReason = "stop" if output.finish_reason == "stop_string" else output.finish_reason
        rest, reason = parser.finish(reason, is_stopped=is_stopped)
        return ChoiceFinished(output.index, (*pieces, *rest), output.num_tokens, reason)


async def _encoded(num_chars: int, encode: Callable[..., list[int]], *texts: str) -> list[int]:
    """Return the tokens of texts, found off the event loop where they are long."""
    if num_chars > _ENCODE_INLINE_CHARS:
        return await asyncio.to_thread(encode, *texts)
    return encode(*texts)


def check_agreement(config: ModelConfig, encoder: PromptEncoder) -> None:
    """Check that prompts have the image tokens that the network expects. Raises: UnsupportedCheckpoint."""
    vision, processor = config.vision, encoder.image_processor
    if vision is None or processor is None:
        return
    of_prompt = (encoder.image_token_id, processor.patch_size, processor.spatial_merge_size)
    of_network = (vision.image_token_id, vision.patch_size, vision.spatial_merge_size)
    if of_prompt != of_network:
        raise UnsupportedCheckpoint(
            "image token, patch size and merge size are "
            f"{of_prompt} in the tokenizer's files and {of_network} in the network's configuration"
        )


def _image_input(placed: PlacedImage, salt: bytes) -> ImageInput:
    image = placed.image
    height, width, _ = image.pixels.shape
    return ImageInput(
        key=hashlib.blake2b(image.digest, digest_size=32, key=salt).digest(),
        start=placed.start,
        num_tokens=placed.num_tokens,
        height=height,
        width=width,
        pixels=image.pixels.tobytes(),
    )


def _num_chars_of(chunk: WireModel) -> int:
    if isinstance(chunk, ThinkingChunk):
        return sum(_num_chars_of(inner) for inner in chunk.thinking)
    return len(chunk.text) if isinstance(chunk, TextChunk) else 0


def _num_chars(request: ChatCompletionRequest) -> int:
    """Return roughly how many characters the tokenizer will see; tools are shown to the model as text too."""
    total = len(str(request.tools)) if request.tools else 0
    for message in request.messages:
        content = message.content
        if isinstance(content, str):
            total += len(content)
        elif content:
            total += sum(_num_chars_of(chunk) for chunk in content)
        for call in getattr(message, "tool_calls", None) or ():
            total += len(str(call.function.arguments))
    return total
