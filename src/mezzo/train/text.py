"""Text without pictures, to hold the decoder to what it said before it learned to see.

Prose is that which every Python has, the reference pages of `help()`; conversations are prompts drawn by
`mezzo.train.data.language`, up to where the answer begins. What matters is not what they say but that the decoder's
opinion of what comes next does not move.
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

from mezzo.train.data.language import prompts

_LENGTH = 64
_TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class TextSource:
    """Batches of text, the same for the same step: prose at even ones, conversations at odd ones."""

    tokenizer_json: Path
    seed: int

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.tokenizer_json))

    @cached_property
    def _prose(self) -> list[int]:
        prose = "\n".join(" ".join(text.split()) for _, text in sorted(topics.items()))
        return self._tokenizer.encode(prose, add_special_tokens=False).ids

    @cached_property
    def _conversations(self) -> list[int]:
        turns = "".join(_TURN.format(prompt) for prompt in prompts("train", seed=self.seed))
        return self._tokenizer.encode(turns, add_special_tokens=False).ids

    def batch(self, step: int, num_tokens: int) -> Tensor:
        """Return token ids (sequences, 64) int64, about `num_tokens` in all."""
        rng = random.Random(f"{self.seed}/text/{step}")
        ids = self._conversations if step % 2 else self._prose
        starts = [rng.randrange(len(ids) - _LENGTH) for _ in range(max(1, num_tokens // _LENGTH))]
        return torch.tensor([ids[start : start + _LENGTH] for start in starts])
