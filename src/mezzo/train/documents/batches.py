"""What is held out, and what each step reads: the same for the same seed, so that a run can be gone on with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mezzo.train.documents.samples import Sample
from mezzo.train.errors import CannotTrain

_SORTED_TOGETHER = 256  # samples whose lengths are compared: little padding, and still much chance


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Return samples to learn and samples to hold out: `share` of the lines, one at least unless it is 0.

    By lines, so that no conversation is on both sides. Raises: CannotTrain if a side that is wanted would be empty.
    """
    lines = sorted({sample.line for sample in samples})
    num_held_out = max(1, round(share * len(lines))) if share else 0
    if num_held_out >= len(lines):
        raise CannotTrain(
            f"{len(lines)} lines with something to learn are too few to hold {num_held_out} out; "
            "add some, or hold none out with --held-out 0"
        )
    held_out = set(np.random.default_rng(seed).permutation(lines)[:num_held_out].tolist())
    return (
        [sample for sample in samples if sample.line not in held_out],
        [sample for sample in samples if sample.line in held_out],
    )


def plan(samples: Sequence[Sample], epochs: int, batch_tokens: int, seed: int) -> list[list[list[int]]]:
    """Return for each epoch its batches, as indices of samples; every sample is in each epoch once."""
    lengths = [len(sample.token_ids) for sample in samples]
    return [_epoch(lengths, batch_tokens, np.random.default_rng([seed, epoch])) for epoch in range(epochs)]


def _epoch(lengths: list[int], batch_tokens: int, rng: np.random.Generator) -> list[list[int]]:
    order = rng.permutation(len(lengths)).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), _SORTED_TOGETHER):
        near = sorted(order[start : start + _SORTED_TOGETHER], key=lambda i: lengths[i])
        batches += in_batches(near, lengths, batch_tokens)
    return [batches[index] for index in rng.permutation(len(batches)).tolist()]


def in_batches(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Cut an order of samples into batches of at most `batch_tokens` tokens with padding; a longer one is alone."""
    batches: list[list[int]] = []
    longest = 0
    for index in order:
        longest = max(longest, lengths[index])
        if batches and (len(batches[-1]) + 1) * longest <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches
