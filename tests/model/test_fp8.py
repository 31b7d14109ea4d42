"""FP8 checkpoints: their numbers are those that the scales make of them, and no scale is missing or left over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzo.model import checkpoint
from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from mezzo.model.quantization import Fp8Weights
from tests.model.layouts import (
    EYES,
    FP8,
    HF_FP8,
    PARAMS,
    TEXT,
    VISION_PARAMS,
    halves,
    hf_weights,
    in_fp8,
    native,
    write,
)
from tests.model.test_layouts import assert_same, load

NATIVE_FP8 = {"quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}}
QUANTIZED = TEXT | {"quantization_config": HF_FP8}
K = "model.layers.1.self_attn.k_proj."


def blocks(high: int, wide: int) -> dict[str, Any]:
    scheme = HF_FP8 | {"weight_block_size": [high, wide], "activation_scheme": "dynamic"}
    return TEXT | {"quantization_config": scheme}


def assert_loads_as(tmp_path: Path, folder: Path, raw: dict[str, Any], meant: dict[str, Tensor]) -> None:
    """Hold a folder against float32 weights of the same meaning, in both dtypes: rounded once, from float32."""
    plain = write(tmp_path / "plain", raw, {"model.safetensors": meant})
    for dtype in (torch.float32, torch.bfloat16):
        assert_same(load(folder, dtype), load(plain, dtype))


class TestNumbers:
    def test_one_scale_for_each_tensor(self, tmp_path: Path) -> None:
        stored, meant = in_fp8(hf_weights(TEXT))
        folder = write(tmp_path / "fp8", QUANTIZED, {"model.safetensors": stored})
        assert_loads_as(tmp_path, folder, TEXT, meant)

    def test_in_the_native_layout(self, tmp_path: Path) -> None:
        stored, meant = in_fp8(hf_weights(TEXT))
        folder = write(tmp_path / "fp8", PARAMS | NATIVE_FP8, {"consolidated.safetensors": native(stored)})
        assert ModelConfig.from_folder(folder).quantization == Fp8Weights()
        assert_loads_as(tmp_path, folder, TEXT, meant)

    def test_eyes_projector_and_head_keep_their_numbers(self, tmp_path: Path) -> None:
        stored, meant = in_fp8(hf_weights(EYES))
        assert stored["vision_tower.transformer.layers.0.attention.q_proj.weight"].dtype is torch.float32
        params = PARAMS | NATIVE_FP8 | {"vision_encoder": VISION_PARAMS}
        hf = write(tmp_path / "fp8", EYES | {"quantization_config": HF_FP8}, {"model.safetensors": stored})
        assert_loads_as(tmp_path, hf, EYES, meant)
        ours = write(tmp_path / "native", params, {"consolidated.safetensors": native(stored)})
        assert_same(load(hf), load(ours))

    @pytest.mark.parametrize(("high", "wide"), [(16, 16), (8, 32), (24, 20), (128, 128)])
    @pytest.mark.parametrize("part_bytes", [32, 700, 1 << 20])
    def test_scales_of_blocks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, high: int, wide: int, part_bytes: int
    ) -> None:
        """Blocks that do not divide the matrix, and parts of a file that begin and end within blocks."""
        monkeypatch.setattr(checkpoint, "FP8_PART_BYTES", part_bytes)
        stored, meant = in_fp8(hf_weights(TEXT), (high, wide))
        folder = write(tmp_path / "fp8", blocks(high, wide), {"model.safetensors": stored})
        assert_loads_as(tmp_path, folder, TEXT, meant)

    @pytest.mark.parametrize("layout", ["hf", "mistral"])
    def test_scales_in_another_shard_before_and_after_their_weights(
        self, tmp_path: Path, layout: str
    ) -> None:
        stored, meant = in_fp8(hf_weights(TEXT))
        raw, tensors, stem = (
            (QUANTIZED, stored, "model")
            if layout == "hf"
            else (PARAMS | NATIVE_FP8, native(stored), "consolidated")
        )
        files = halves(tensors, stem)
        folder = write(tmp_path / "fp8", raw, files, index=True)
        scale = "weight_scale_inv" if layout == "hf" else "qscale_weight"
        apart = [
            (name in one, f"{name.removesuffix('weight')}{scale}" in one)
            for one in [next(iter(files.values()))]
            for name in tensors
            if tensors[name].dtype is FP8
        ]
        assert {(True, False), (False, True)} <= set(apart), "the test's own files are not what it says"
        assert_loads_as(tmp_path, folder, TEXT, meant)

    @pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_forms_of_a_scale(self, tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        stored, _ = in_fp8(hf_weights(TEXT))
        stored[f"{K}weight_scale_inv"] = torch.full(shape, 0.5, dtype=dtype)
        network = load(write(tmp_path, QUANTIZED, {"model.safetensors": stored}))
        assert torch.equal(
            network.decoder.layers[1].attention.wqkv.weight[32:48], stored[f"{K}weight"].float() * 0.5
        )


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__delitem__(name)


def replaced(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__setitem__(name, tensor)


FAULTS: dict[str, tuple[Callable[[dict[str, Tensor]], None], str]] = {
    "missing": (without(f"{K}weight_scale_inv"), f"{K}weight is stored in FP8 and lacks its scale {K}weight_scale_inv"),
    "left over": (
        replaced(f"{K}weight", torch.ones(16, 32)), f"_scale.* is left over: {K}weight is not stored in FP8",
    ),
    "of nothing": (
        replaced("model.layers.1.self_attn.x_proj.weight_scale_inv", torch.ones(())), "unknown tensor .*x_proj.weight_",
    ),
    "blocks where one was announced": (
        replaced(f"{K}weight_scale_inv", torch.ones(2, 2)),
        rf"{K}weight_scale_inv has shape \(2, 2\), but the configuration makes it \(\) or \(1,\) or \(1, 1\)",
    ),
    "integers": (
        replaced(f"{K}weight_scale_inv", torch.ones((), dtype=torch.int32)),
        f"{K}weight_scale_inv has dtype torch.int32, which is not supported",
    ),
    "not finite": (
        replaced(f"{K}weight_scale_inv", torch.tensor(float("nan"))), f"{K}weight_scale_inv holds numbers that are not",
    ),
    "below zero": (
        replaced(f"{K}weight_scale_inv", torch.tensor(-1.0)), f"{K}weight_scale_inv holds numbers that are not finite",
    ),
    "another format": (
        replaced(f"{K}weight", torch.ones(16, 32).to(torch.float8_e5m2)),
        f"{K}weight has dtype torch.float8_e5m2, which is not supported",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(tmp_path: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    stored, _ = in_fp8(hf_weights(TEXT))
    change(stored)
    write(tmp_path, QUANTIZED, {"model.safetensors": stored})
    with pytest.raises(UnsupportedCheckpoint, match=message):
        load(tmp_path)


def test_a_grid_of_another_size_than_the_blocks_make(tmp_path: Path) -> None:
    stored, _ = in_fp8(hf_weights(TEXT), (16, 16))
    write(tmp_path, blocks(16, 8), {"model.safetensors": stored})
    with pytest.raises(
        UnsupportedCheckpoint, match=r"_scale_inv has shape \(.*\), but the configuration makes it \("
    ):
        load(tmp_path)


def test_scales_that_the_configuration_does_not_announce(tmp_path: Path) -> None:
    stored, _ = in_fp8(hf_weights(TEXT))
    write(tmp_path, TEXT, {"model.safetensors": stored})
    with pytest.raises(
        UnsupportedCheckpoint, match=r"_proj\.weight has dtype torch\.float8_e4m3fn, which is not supported"
    ):
        load(tmp_path)
