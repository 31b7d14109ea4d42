"""From logits to token ids: penalties, temperature, nucleus, and a random number that depends on nothing else.

The random number of a token is a function of (seed, choice, position) alone: not of the batch it is sampled in,
not of what was sampled for others, not of whether the sequence was preempted in between.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence as ListOf

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mezzo.engine.sequence import Sequence

# Tokens looked at first for the nucleus. Sorting the whole vocabulary costs 35 times as much (49,152 entries), and
# is needed only when so many tokens do not reach top_p together.
_NUCLEUS_FIRST_LOOK = 256
_BUCKET = 256
_SMALLEST_TEMPERATURE = torch.finfo(torch.float32).tiny


@torch.inference_mode()
def sample(logits: Tensor, sequences: ListOf[Sequence]) -> list[int | None]:
    """Pick the next token of each sequence from its row of `logits` (rows, vocab_size) float32.

    `logits` may be changed. Greedy rows take the most likely token, the lowest id among equals. A row without a
    finite maximum (weights that overflow their number format) has no next token: None.
    """
    for row, sequence in enumerate(sequences):
        if sequence.params.has_penalties and sequence.completion_counts:
            _penalise(logits[row], sequence)
    best, best_ids = logits.max(dim=-1)
    token_ids: list[int | None] = best_ids.tolist()
    for row, (sequence, largest) in enumerate(zip(sequences, best.tolist(), strict=True)):
        if not math.isfinite(largest):
            token_ids[row] = None
        elif not sequence.params.is_greedy:
            uniform = uniform_for(sequence.seed, sequence.index, sequence.num_completion)
            token_ids[row] = draw(logits[row], sequence.params.temperature, sequence.params.top_p, uniform)
    return token_ids


@torch.inference_mode()
def forbid(logits: Tensor, allowed: ListOf[NDArray[np.bool_] | None]) -> None:
    """Leave each row of `logits` (rows, vocab_size) only the tokens that it may take, in place.

    allowed: for each row (vocab_size,), or None where all may be taken.
    """
    for row, mask in enumerate(allowed):
        if mask is not None:
            logits[row].masked_fill_(torch.from_numpy(~mask).to(logits.device), -torch.inf)


def draw(logits: Tensor, temperature: float, top_p: float, uniform: float) -> int:
    """Draw from the tempered, nucleus-limited distribution by inverting its cumulative sum at `uniform` in [0, 1).

    logits (vocab_size,) float32. Source of the nucleus: arXiv 1904.09751.
    """
    # The largest logit is subtracted first, so that a tiny temperature gives 0 and -inf, never inf; one that is zero
    # in float32 would give 0 / 0.
    temperature = max(temperature, _SMALLEST_TEMPERATURE)
    probabilities = torch.softmax((logits - logits.max()) / temperature, dim=-1)
    if top_p < 1:
        return _draw_from_nucleus(probabilities, top_p, uniform)
    # Two levels, buckets then entries: sums of short rows are both faster and more exact than one long running sum.
    padded = torch.nn.functional.pad(probabilities, (0, -probabilities.numel() % _BUCKET)).view(-1, _BUCKET)
    bucket_ends = padded.sum(dim=-1).double().cumsum(0)
    target = uniform * bucket_ends[-1].item()
    bucket = _first_above(bucket_ends, target)
    below = bucket_ends[bucket - 1].item() if bucket else 0.0
    return bucket * _BUCKET + _first_above(padded[bucket].double().cumsum(0), target - below)


def uniform_for(seed: int, index: int, position: int) -> float:
    """Return a number in [0, 1) from 53 bits of BLAKE2b over the three counts; the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{index}/{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def _draw_from_nucleus(probabilities: Tensor, top_p: float, uniform: float) -> int:
    first_look = min(_NUCLEUS_FIRST_LOOK, probabilities.numel())
    top, token_ids = probabilities.topk(first_look)
    ends = top.double().cumsum(0)
    if ends[-1].item() < top_p and first_look < probabilities.numel():
        top, token_ids = probabilities.sort(descending=True)
        ends = top.double().cumsum(0)
    # The nucleus is the shortest beginning that reaches top_p; rounding may leave the whole sum just below it.
    last = min(int(torch.searchsorted(ends, top_p).item()), ends.numel() - 1)
    return int(token_ids[_first_above(ends[: last + 1], uniform * ends[last].item())].item())


def _first_above(ends: Tensor, target: float) -> int:
    """Return the first index whose cumulative sum is above `target`; it always has probability above zero."""
    index = int(torch.searchsorted(ends, target, right=True).item())
    if index == ends.numel():  # target rounded up to the whole sum: the last entry that has any probability
        index = int(torch.searchsorted(ends, ends[-1].item()).item())
    return index


def _penalise(logits: Tensor, sequence: Sequence) -> None:
    """Subtract presence and frequency penalties of what the completion holds so far, in place."""
    counts = sequence.completion_counts
    token_ids = torch.tensor(list(counts), device=logits.device)
    times = torch.tensor(list(counts.values()), dtype=logits.dtype, device=logits.device)
    logits[token_ids] -= sequence.params.presence_penalty + sequence.params.frequency_penalty * times
