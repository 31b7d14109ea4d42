"""The engine's own check of what a caller chose."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mezzo.engine.sampling_params import SamplingParams


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", -0.5),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("presence_penalty", 2.1),
        ("presence_penalty", math.nan),
        ("frequency_penalty", -2.1),
        ("seed", -1),
        ("max_tokens", -1),
        ("stop", ("a", "")),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must"):
        SamplingParams(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.0),
        ("temperature", 1e-6),
        ("top_p", 1.0),
        ("top_p", 1e-9),
        ("presence_penalty", -2),
        ("frequency_penalty", 2),
        ("seed", 0),
        ("seed", 2**63 - 1),
        ("max_tokens", 0),
        ("stop", ("\n",)),
    ],
)
def test_a_value_at_the_border_is_taken(field: str, value: Any) -> None:
    assert getattr(SamplingParams(**{field: value}), field) == value


def test_only_temperature_zero_is_greedy() -> None:
    assert SamplingParams(temperature=0).is_greedy
    assert not SamplingParams(temperature=1e-6).is_greedy


@pytest.mark.parametrize(
    ("params", "has_penalties"),
    [
        (SamplingParams(), False),
        (SamplingParams(presence_penalty=-0.1), True),
        (SamplingParams(frequency_penalty=0.1), True),
    ],
)
def test_has_penalties(params: SamplingParams, has_penalties: bool) -> None:
    assert params.has_penalties is has_penalties
