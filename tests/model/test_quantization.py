"""Reading quantization_config: two forms of FP8 are understood, everything else is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from mezzo.model.quantization import Fp8Weights, quantization_from_hf
from tests.model.layouts import EYES, HF_FP8
from tests.tiny import HF_CONFIG


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, None),
        ({}, None),
        (HF_FP8, Fp8Weights()),
        ({"quant_method": "fp8"}, Fp8Weights()),
        (
            {
                "quant_method": "fp8",
                "activation_scheme": "dynamic",
                "fmt": "e4m3",
                "weight_block_size": [128, 128],
            },
            Fp8Weights(block_size=(128, 128)),
        ),
    ],
)
def test_what_is_understood(raw: dict[str, Any] | None, expected: Fp8Weights | None) -> None:
    assert quantization_from_hf(raw) == expected
    assert ModelConfig.from_hf(HF_CONFIG | {"quantization_config": raw}).quantization == expected
    assert ModelConfig.from_hf(EYES | {"quantization_config": raw}).quantization == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"quant_method": "compressed-tensors"},
            "quant_method 'compressed-tensors' is not supported; supported is 'fp8'",
        ),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quant_method 'bitsandbytes'"),
        ({"weight_block_size": [128, 128]}, "quant_method None"),
        (HF_FP8 | {"fmt": "e5m2"}, "fmt 'e5m2' is not supported; supported is 'e4m3'"),
        (HF_FP8 | {"scale_fmt": "ue8m0"}, "scale_fmt 'ue8m0'"),
        (HF_FP8 | {"modules_to_convert": ["embed_tokens"]}, "'modules_to_convert' is not supported"),
        (HF_FP8 | {"surprise": 1}, "'surprise' is not supported"),
        *[
            (HF_FP8 | {"weight_block_size": size}, "weight_block_size .* is not two sizes")
            for size in (128, [128], [128, 0], [128, -1], [1.5, 128], ["a", "b"], [True, 1])
        ],
    ],
)
def test_what_is_not_is_named(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=f"quantization_config: {message}"):
        quantization_from_hf(raw)
