"""What tests of the quantized decoder share: a shape that the kernels know, weights of four bits, a forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mezzo.model.attention import SequenceSpan

BLOCK = 16
SHAPE = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 96}


def of_four_bits(outputs: int, inputs: int, scale: float = 0.01) -> Tensor:
    """Return weights that four bits can hold exactly: each group has both ends of its range."""
    groups, random = inputs // 32, torch.Generator().manual_seed(5)
    q = torch.randint(0, 16, (outputs, groups, 32), generator=random)
    q[:, :, 3], q[:, :, 17] = 0, 15
    steps = (torch.randn(outputs, groups, generator=random).abs() * scale + scale / 10).half().float()
    minima = (-7.5 * steps + torch.randn(outputs, groups, generator=random) * steps).half().float()
    return (q * steps[..., None] + minima[..., None]).flatten(1)


def logits_of(network: Any, token_ids: list[int], cache: Any) -> Tensor:
    """Return the logits of every position of a text, computed at once; the cache has six blocks."""
    span = SequenceSpan([3, 1, 0, 2, 5, 4], 0, len(token_ids))
    positions = torch.arange(len(token_ids))
    with torch.inference_mode():
        plan = network.decoder.plan([span], cache)
        logits: Tensor = network.decoder(torch.tensor(token_ids), positions, plan, cache, positions)
    return logits
