"""Rotary position embedding: the angles for every position, and their application to queries and keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mezzo.model.config import RopeConfig


class RotaryEmbedding(nn.Module):
    """Angles of the rotary embedding, computed for the positions at hand.

    Nothing is tabulated: a step has few positions, a long context has many.
    """

    inv_freq: Tensor
    """(head_dim / 2) float32: radians that one position turns each pair by."""

    def __init__(self, config: RopeConfig, head_dim: int) -> None:
        super().__init__()
        self.config = config
        self.head_dim = head_dim
        self.attention_factor = _yarn_attention_factor(config) if config.kind == "yarn" else 1.0
        with torch.device(
            "cpu"
        ):  # a few numbers, the same on every device; arithmetic on `meta` imports half of PyTorch
            frequencies = inverse_frequencies(config, head_dim)
        self.register_buffer("inv_freq", frequencies.to(torch.get_default_device()), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos and sin for `positions` (tokens,), each (tokens, 1, head_dim) float32.

        The sine of the first half carries the minus sign of the rotation, so `rotate` needs no negation.
        """
        angles = positions.to(torch.float32)[:, None] * self.inv_freq
        cos = angles.cos() * self.attention_factor
        sin = angles.sin() * self.attention_factor
        return torch.cat((cos, cos), dim=-1)[:, None], torch.cat((-sin, sin), dim=-1)[:, None]

    def query_scale(self, positions: Tensor) -> Tensor | None:
        """Return Ministral 3's scale of the queries, (tokens, 1, 1) float32, or None where there is none.

        1 + beta * ln(1 + floor(position / original context)): 1 within the original context, growing slowly
        beyond it, against attention that thins out over long contexts.
        Source: the Ministral 3 checkpoints' `llama_4_scaling_beta`; Llama 4 calls it attention temperature.
        """
        config = self.config
        if config.query_scale_beta is None or config.original_max_positions is None:
            return None
        periods = torch.floor(positions.to(torch.float32) / config.original_max_positions)
        return (1.0 + config.query_scale_beta * torch.log1p(periods))[:, None, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary position embedding to queries or keys.

    Shapes: x (tokens, heads, head_dim) in any float dtype; cos, sin as `RotaryEmbedding` returns them.
    Computed in float32, returned in x's dtype. A pair is (i, i + head_dim / 2), as the Hugging Face layout has
    it; checkpoints with interleaved pairs get their rows permuted when they are loaded.
    Source: RoFormer (arXiv 2104.09864), section 3.4.2.
    """
    wide = x.to(torch.float32)
    half = x.shape[-1] // 2
    swapped = torch.cat((wide[..., half:], wide[..., :half]), dim=-1)
    return torch.addcmul(wide * cos, swapped, sin).to(x.dtype)


def inverse_frequencies(config: RopeConfig, head_dim: int) -> Tensor:
    """Return the radians per position of each pair, (head_dim / 2) float32, of any rope kind."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / (config.theta**exponents)
    if config.kind == "linear":
        return frequencies / config.factor
    if config.kind == "yarn":
        return _yarn_frequencies(config, head_dim, frequencies)
    return frequencies


def _yarn_frequencies(config: RopeConfig, head_dim: int, frequencies: Tensor) -> Tensor:
    """Blend original and interpolated frequencies pair by pair.

    Pairs that turn more than `beta_fast` times over the original context keep their frequency, those that turn
    less than `beta_slow` times are slowed by `factor`, and a linear ramp joins them.
    Source: YaRN (arXiv 2309.00071), section 3.2, "NTK-by-parts".
    """
    assert config.original_max_positions is not None, "yarn without original_max_positions"

    def pair_that_turns(times: float) -> float:
        ratio = config.original_max_positions / (times * 2 * math.pi)  # type: ignore[operator]
        return head_dim * math.log(ratio) / (2 * math.log(config.theta))

    low, high = pair_that_turns(config.beta_fast), pair_that_turns(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # a ramp of no width would divide by zero
    pairs = torch.arange(head_dim // 2, dtype=torch.float32)
    interpolated_share = ((pairs - low) / (high - low)).clamp(0, 1)
    return frequencies / config.factor * interpolated_share + frequencies * (1 - interpolated_share)


def _yarn_attention_factor(config: RopeConfig) -> float:
    """Return the factor on cos and sin that stands for YaRN's attention temperature (section 3.3)."""

    def temperature(mscale: float) -> float:
        return 1.0 if config.factor <= 1 else 0.1 * mscale * math.log(config.factor) + 1.0

    if config.attention_factor is not None:
        return config.attention_factor
    if config.mscale and config.mscale_all_dim:
        return temperature(config.mscale) / temperature(config.mscale_all_dim)
    return temperature(1.0)
