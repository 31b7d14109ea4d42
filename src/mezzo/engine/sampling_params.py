"""What a caller may choose about sampling. Checked again here: the engine trusts nobody."""

from __future__ import annotations

import math

import msgspec


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """The sampling choices of one request.

    temperature   0 is greedy; otherwise logits are divided by it.
    top_p         nucleus: sample from the smallest set of tokens whose probability reaches it. (0, 1].
    seed          same seed, same prompt, same weights: same tokens. None draws a fresh one.
    presence_penalty, frequency_penalty
                  subtracted from the logits of tokens already produced, once or per occurrence. -2 to 2.
    max_tokens    completion tokens at most, per sequence; None means up to the end of the context.
    stop          strings that end the text; they are never part of it.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises: ValueError naming the field that is out of range."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError("temperature must be a finite number of at least 0")
        if not 0 < self.top_p <= 1:
            raise ValueError("top_p must be above 0 and at most 1")
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= getattr(self, name) <= 2:
                raise ValueError(f"{name} must be between -2 and 2")
        if self.seed is not None and self.seed < 0:
            raise ValueError("seed must not be negative")
        if self.max_tokens is not None and self.max_tokens < 0:
            raise ValueError("max_tokens must not be negative")
        if "" in self.stop:
            raise ValueError("stop must not hold an empty string")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        return self.presence_penalty != 0 or self.frequency_penalty != 0
