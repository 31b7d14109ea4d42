"""How an engine is set up. Crosses the process border whole, so the two sides cannot disagree."""

from __future__ import annotations

from typing import Literal

import msgspec


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The choices of one engine.

    folder             checkpoint folder to load
    device, dtype      `auto` is resolved where the engine runs; see `mezzo.engine.loader`
    packed_folder      where weights packed into few bits are kept for the next start; None keeps none
    threads            threads of a step; None is one per core
    max_num_seqs       sequences in the running batch at most
    max_step_tokens    prompt tokens computed in one step at most, and the length of a prompt's chunks: the bound
                       on how long a long prompt delays running streams
    kv_cache_tokens    positions in the KV cache; None sizes it from the memory that is free
    block_size         positions in a block
    max_draft_tokens   guessed tokens that a step may check, for all sequences together; 0 guesses nothing
    image_cache_tokens tokens of images whose embeddings are kept after use, so that a picture that comes again is not
                       encoded again
    prefix_cache       whether computed blocks are found again by requests with the same salt that begin alike
    """

    folder: str
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"] = "auto"
    packed_folder: str | None = None
    threads: int | None = None
    max_num_seqs: int = 32
    max_step_tokens: int = 512
    kv_cache_tokens: int | None = None
    block_size: int = 64
    max_draft_tokens: int = 32
    image_cache_tokens: int = 16384
    prefix_cache: bool = True

    def __post_init__(self) -> None:
        """Raises: ValueError naming the field that is out of range."""
        for name in ("max_num_seqs", "max_step_tokens", "block_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("max_draft_tokens", "image_cache_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("threads", "kv_cache_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1")


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine needs of a tokenizer, as data.

    token_bytes     the bytes each token id stands for; empty for control tokens
    eos_token_ids   ids that end a sequence
    marker_token_ids  control tokens that are reported: the output format gives them a meaning
    """

    token_bytes: tuple[bytes, ...]
    eos_token_ids: frozenset[int]
    marker_token_ids: frozenset[int] = frozenset()

    def bytes_of(self, token_id: int) -> bytes:
        """Return what a token stands for; a model may have more rows in its head than the tokenizer has tokens."""
        return self.token_bytes[token_id] if token_id < len(self.token_bytes) else b""
