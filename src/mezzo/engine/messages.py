"""What crosses the border between the server and the engine process.

Frames are a four-byte big-endian length and a MessagePack map whose `type` names the message. Each direction is
a stream of frames over one socket pair; when it closes, the other side is gone.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.sampling_params import SamplingParams
from mezzo.engine.sequence import FinishReason, TokenScore

HEADER = struct.Struct(">I")


class Start(msgspec.Struct, frozen=True, tag="start"):
    """First message to the engine: load and begin."""

    config: EngineConfig
    vocabulary: Vocabulary


class ImageInput(msgspec.Struct, frozen=True, kw_only=True):
    """An image of a prompt, at the size that the vision encoder reads.

    key                equal for equal pixels that may share their embeddings, different for all others
    start, num_tokens  the prompt's tokens that stand for it, separators included
    height, width      of `pixels`, which are RGB, row by row, one byte a channel
    """

    key: bytes
    start: int
    num_tokens: int
    height: int
    width: int
    pixels: bytes

    def __repr__(self) -> str:
        return f"ImageInput({self.width}x{self.height} at {self.start})"


class AddRequest(msgspec.Struct, frozen=True, tag="add", kw_only=True):
    """Generate `n` sequences from a prompt. `request_id` must not be in use.

    grammar      what the answer must be (`mezzo.engine.grammar`); None leaves it free
    prediction_token_ids
                 what the answer is expected to be; it changes nothing but the time that the answer takes
    scored_from  position in the prompt, from 1 on: instead of an answer, how likely each of the prompt's tokens from
                 there on is after those before it; `n` is 1 then and `max_tokens` 0
    unique_items the JSON Schema of the answer, where `uniqueItems` in it must hold beside `grammar`
    begun_with   the end of the prompt that is the beginning of the answer already
    cache_salt   a secret; only requests with the same one find what the others have computed, so that nobody can tell
                 by the time an answer takes what others have sent. None: this request shares nothing with any other
    """

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    n: int = 1
    images: tuple[ImageInput, ...] = ()
    prediction_token_ids: list[int] = []
    scored_from: int | None = None
    grammar: str | None = None
    unique_items: str | None = None
    begun_with: bytes = b""
    cache_salt: bytes | None = None


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """Stop a request; unknown ids are ignored, since a request may end while its abort is under way."""

    request_id: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Leave now."""


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """Progress of the load, in bytes of the checkpoint's files."""

    loaded: int
    total: int


class Ready(msgspec.Struct, frozen=True, tag="ready", kw_only=True):
    """The engine takes requests. `max_context_length`: tokens that one sequence may have here, prompt included."""

    device: str
    dtype: str
    threads: int
    max_context_length: int
    num_blocks: int
    block_size: int
    weights_bytes: int
    kv_cache_bytes: int
    load_s: float


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The engine cannot start, and says why in words for an operator. It leaves after this message."""

    message: str


class SequenceOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What a step added to one sequence. The last one carries a finish reason, and there is exactly one such.

    marker   a marker token of the vocabulary that the sequence produced after `text`
    scores   of the request's tokens from `scored_from` on, with the last output
    num_accepted, num_rejected
             tokens of the request's prediction that this step tried, and that were the answer's or not
    num_cached_tokens
             tokens of the request's prompt that were found in the prefix cache, the same in all its outputs; 0 where it
             was not begun
    `abort` stands for a sequence that was taken out on request, `error` for one without a valid next token.
    """

    request_id: str
    index: int
    text: str
    num_tokens: int
    marker: int | None = None
    num_accepted: int = 0
    num_rejected: int = 0
    num_cached_tokens: int = 0
    scores: tuple[TokenScore, ...] = ()
    finish_reason: FinishReason | None = None


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Gauges after a step, and counts since the engine started.

    num_requests      requests read from the server: what it sent beyond them was never seen
    num_draft_tokens, num_accepted_tokens
                      tokens that were guessed, and those that were right
    num_image_hits, num_image_misses
                      images of prompts whose embeddings were there already, and that were encoded
    num_prefix_hits, num_prefix_misses, num_cached_tokens
                      requests that began with a prompt whose beginning was in the prefix cache, and those that did not;
                      tokens of prompts that were found there
    """

    num_running: int
    num_waiting: int
    num_blocks: int
    num_free_blocks: int
    num_requests: int
    num_steps: int
    num_preemptions: int
    num_prompt_tokens: int
    num_completion_tokens: int
    num_draft_tokens: int
    num_accepted_tokens: int
    num_image_hits: int
    num_image_misses: int
    num_prefix_hits: int
    num_prefix_misses: int
    num_cached_tokens: int


class StepDone(msgspec.Struct, frozen=True, tag="step"):
    """All that a step produced."""

    outputs: list[SequenceOutput]
    stats: EngineStats


ToEngine = Start | AddRequest | Abort | Stop
FromEngine = Loading | Ready | Failed | StepDone

_encoder = msgspec.msgpack.Encoder()


def encode_frame(message: ToEngine | FromEngine) -> bytes:
    """Return the frame of a message, header included."""
    payload = _encoder.encode(message)
    return HEADER.pack(len(payload)) + payload


def decode_to_engine(payload: bytes | memoryview) -> ToEngine:
    """Decode what the server sent. Raises: msgspec.DecodeError."""
    message: ToEngine = _to_engine.decode(payload)
    return message


def decode_from_engine(payload: bytes | memoryview) -> FromEngine:
    """Decode what the engine sent. Raises: msgspec.DecodeError."""
    message: FromEngine = _from_engine.decode(payload)
    return message


_to_engine: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToEngine)
_from_engine: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromEngine)
