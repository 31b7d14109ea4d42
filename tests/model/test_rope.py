"""Rotary embedding against slow formulations: rotation of complex numbers, and YaRN pair by pair in plain Python."""

from __future__ import annotations

import cmath
import math
from typing import Any

import pytest
import torch

from mezzo.model.config import RopeConfig
from mezzo.model.rope import RotaryEmbedding, inverse_frequencies, rotate

YARN: dict[str, Any] = {"kind": "yarn", "factor": 8.0, "original_max_positions": 64}


def slow_rotate(vector: list[float], position: int, frequencies: list[float]) -> list[float]:
    """Turn pair i, (x[i], x[i + half]) as one complex number, by position * frequency."""
    half = len(vector) // 2
    pairs = [
        complex(vector[i], vector[i + half]) * cmath.exp(1j * position * frequencies[i]) for i in range(half)
    ]
    return [z.real for z in pairs] + [z.imag for z in pairs]


def slow_frequencies(config: RopeConfig, head_dim: int) -> list[float]:
    """YaRN, section 3.2: the ramp is over dimensions, between those that turn beta_fast and beta_slow times."""
    plain = [config.theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    if config.kind == "default":
        return plain
    if config.kind == "linear":
        return [f / config.factor for f in plain]
    assert config.original_max_positions is not None

    def dimension(rotations: float) -> float:
        wavelength = config.original_max_positions / rotations  # type: ignore[operator]
        return head_dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(config.theta))

    low, high = dimension(config.beta_fast), dimension(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    result = []
    for i, frequency in enumerate(plain):
        if i <= low:
            share = 0.0
        elif i >= high:
            share = 1.0
        else:
            share = (i - low) / (high - low)
        result.append(frequency * (1 - share) + frequency / config.factor * share)
    return result


CONFIGS = {
    "default": RopeConfig(),
    "theta": RopeConfig(theta=1e6),
    "linear": RopeConfig(kind="linear", factor=4.0),
    "yarn": RopeConfig(**YARN),
    "yarn untruncated": RopeConfig(**YARN, truncate=False),
    "yarn betas": RopeConfig(**YARN, beta_fast=4.0, beta_slow=0.5, theta=500.0),
    "yarn of no width": RopeConfig(**YARN, beta_fast=2.0, beta_slow=2.0, truncate=False),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("head_dim", [2, 8, 64])
def test_frequencies(config: RopeConfig, head_dim: int) -> None:
    expected = torch.tensor(slow_frequencies(config, head_dim))
    torch.testing.assert_close(inverse_frequencies(config, head_dim), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_rotation_is_that_of_complex_numbers(config: RopeConfig) -> None:
    head_dim, positions = 16, [0, 1, 7, 63, 64, 500]
    x = torch.randn(len(positions), 3, head_dim, generator=torch.Generator().manual_seed(0))
    embedding = RotaryEmbedding(config, head_dim)
    rotated = rotate(x, *embedding(torch.tensor(positions))) / embedding.attention_factor
    frequencies = slow_frequencies(config, head_dim)
    expected = torch.tensor(
        [
            [slow_rotate(head, p, frequencies) for head in token]
            for token, p in zip(x.tolist(), positions, strict=True)
        ]
    )
    # Angles of up to 500 radians in float32 are exact to about 3e-5.
    torch.testing.assert_close(rotated, expected, rtol=0, atol=2e-4)


def test_scores_depend_on_distance_only() -> None:
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 1, 1, 32, generator=generator).unbind()
    embedding = RotaryEmbedding(RopeConfig(), 32)

    def score(query_position: int, key_position: int) -> float:
        q = rotate(query, *embedding(torch.tensor([query_position])))
        k = rotate(key, *embedding(torch.tensor([key_position])))
        return float((q * k).sum())

    assert score(10, 3) == pytest.approx(score(107, 100), abs=1e-4)
    assert score(10, 3) != pytest.approx(score(10, 4), abs=1e-2)


def test_half_precision_is_rotated_in_float32_and_rounded_once() -> None:
    x = torch.randn(4, 2, 16, generator=torch.Generator().manual_seed(2)).bfloat16()
    cos, sin = RotaryEmbedding(RopeConfig(), 16)(torch.arange(4))
    rotated = rotate(x, cos, sin)
    assert rotated.dtype is torch.bfloat16
    assert torch.equal(rotated, rotate(x.float(), cos, sin).bfloat16())


class TestAttentionFactor:
    """YaRN, section 3.3: 0.1 ln(factor) + 1, on cos and sin alike."""

    def factor(self, **changes: Any) -> float:
        return RotaryEmbedding(RopeConfig(**{**YARN, **changes}), 8).attention_factor

    def test_of_yarn(self) -> None:
        assert self.factor() == pytest.approx(0.1 * math.log(8) + 1)

    def test_without_a_longer_context_there_is_none(self) -> None:
        assert self.factor(factor=1.0) == 1.0

    def test_given_outright(self) -> None:
        assert self.factor(attention_factor=1.25) == 1.25

    def test_of_two_scales_is_their_quotient(self) -> None:
        expected = (0.1 * 0.7 * math.log(8) + 1) / (0.1 * 1.2 * math.log(8) + 1)
        assert self.factor(mscale=0.7, mscale_all_dim=1.2) == pytest.approx(expected)
        assert self.factor(mscale=1.0, mscale_all_dim=1.0) == 1.0

    @pytest.mark.parametrize("kind", ["default", "linear"])
    def test_is_yarn_s_alone(self, kind: str) -> None:
        assert self.factor(kind=kind) == 1.0

    def test_reaches_cos_and_sin(self) -> None:
        cos, sin = RotaryEmbedding(RopeConfig(**YARN, attention_factor=2.0), 8)(torch.tensor([3]))
        torch.testing.assert_close(cos**2 + sin**2, torch.full_like(cos, 4.0))


class TestQueryScale:
    def test_by_hand(self) -> None:
        """64 positions of original context, beta 0.5: 1 up to 63, then 1 + 0.5 ln 2, from 128 on 1 + 0.5 ln 3."""
        embedding = RotaryEmbedding(RopeConfig(**YARN, query_scale_beta=0.5), 8)
        scale = embedding.query_scale(torch.tensor([0, 63, 64, 127, 128]))
        assert scale is not None
        assert scale.shape == (5, 1, 1)
        second, third = 1 + 0.5 * math.log(2), 1 + 0.5 * math.log(3)
        torch.testing.assert_close(scale.flatten(), torch.tensor([1.0, 1.0, second, second, third]))

    def test_there_is_none_without_beta(self) -> None:
        assert RotaryEmbedding(RopeConfig(**YARN), 8).query_scale(torch.tensor([0])) is None
