"""Plain English to hold the decoder to what it said before it learned to see.

The texts are those that every Python has: the reference pages of `help()`. What matters is not what they say but that
the decoder's opinion of them does not move.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pydoc_data.topics import topics

import torch
from tokenizers import Tokenizer
from torch import Tensor

_LENGTH = 64


@dataclass(frozen=True)
class TextSource:
    """Batches of plain text, the same for the same step."""

    tokenizer_json: Path
    seed: int

    @cached_property
    def _token_ids(self) -> list[int]:
        tokenizer = Tokenizer.from_file(str(self.tokenizer_json))
        prose = "\n".join(" ".join(text.split()) for _, text in sorted(topics.items()))
        return tokenizer.encode(prose, add_special_tokens=False).ids

    def batch(self, step: int, num_tokens: int) -> Tensor:
        """Return token ids (sequences, 64) int64, about `num_tokens` in all."""
        rng = random.Random(f"{self.seed}/text/{step}")
        ids = self._token_ids
        starts = [rng.randrange(len(ids) - _LENGTH) for _ in range(max(1, num_tokens // _LENGTH))]
        return torch.tensor([ids[start : start + _LENGTH] for start in starts])
