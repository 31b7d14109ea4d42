"""A merged update that is kept apart: the same network, in fewer bits; and a file that does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mezzo.model.checkpoint import read_headers
from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from mezzo.model.kernels.library import Kernels, KernelsMissing, check_kernels
from mezzo.model.kv_cache import KVCache
from mezzo.model.lora_names import MERGED_LORA, STORED_A, STORED_B
from mezzo.model.merged_lora import merged_updates
from mezzo.model.packed_weights import load_quantized
from mezzo.model.quantized_kv_cache import QuantizedKVCache
from tests import tiny
from tests.model.quantized import BLOCK, SHAPE, logits_of, of_four_bits

RANK = 3
_LAYER = "model.layers.0."
SHARED = [f"{_LAYER}self_attn.{name}_proj" for name in "qkv"]


def normal(*shape: int, seed: int) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a checkpoint whose layers were made of four bits and updated, and what they were updated by."""
    folder = tiny.write_checkpoint(tmp_path / "c", **SHAPE)
    weights = load_file(folder / "model.safetensors")
    updates = {}
    for number, (name, weight) in enumerate(sorted(weights.items())):
        if not name.startswith("model.layers.") or weight.dim() != 2:
            continue
        stem = name.removesuffix(".weight")
        # Queries, keys and values of the first layer share what is done to their inputs; elsewhere nothing is shared.
        seed = 1 if stem in SHARED else 100 + number
        a, b = normal(RANK, weight.shape[1], seed=seed), normal(weight.shape[0], RANK, seed=200 + number)
        weights[name] = of_four_bits(*weight.shape, scale=0.1) + b @ a
        updates |= {stem + STORED_A: a, stem + STORED_B: b}
    save_file(weights, folder / "model.safetensors")
    save_file(updates, folder / MERGED_LORA)
    return folder


def updates_of(folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    config = ModelConfig.from_folder(folder)
    network = tiny.load_with_eyes(folder)
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    return merged_updates(folder, config, read_headers(folder).layout, shapes)


def test_what_is_computed_as_one_has_one_update(folder: Path) -> None:
    found, stored = updates_of(folder), load_file(folder / MERGED_LORA)
    a, b = found["decoder.layers.0.attention.wqkv.weight"]
    assert a.shape == (RANK, 64)  # one of three that are equal
    expected = torch.cat([stored[stem + STORED_B] @ stored[stem + STORED_A] for stem in SHARED])
    torch.testing.assert_close(b @ a, expected)
    a, b = found["decoder.layers.0.feed_forward.w13.weight"]
    assert a.shape == (2 * RANK, 64)
    stems = [f"{_LAYER}mlp.{name}_proj" for name in ("gate", "up")]
    expected = torch.cat([stored[stem + STORED_B] @ stored[stem + STORED_A] for stem in stems])
    torch.testing.assert_close(b @ a, expected)


def test_no_file_no_updates(folder: Path) -> None:
    (folder / MERGED_LORA).unlink()
    assert updates_of(folder) == {}


@pytest.mark.parametrize("num_bits", [8, 4])
def test_matrices_keep_their_four_bits(folder: Path, tmp_path: Path, num_bits: int) -> None:
    try:
        check_kernels()
    except KernelsMissing as error:
        pytest.skip(str(error))
    exact = tiny.load_with_eyes(folder)
    token_ids = list(b"A text of some length, over more than a few blocks of the cache.")
    cache = KVCache(exact.config, num_blocks=6, block_size=BLOCK, dtype=torch.float32, device=tiny.CPU)
    expected = logits_of(exact, token_ids, cache)

    def load() -> Any:
        options: dict[str, Any] = {"num_bits": num_bits, "kernels": Kernels(1)}
        config = ModelConfig.from_folder(folder)
        return load_quantized(folder, config, packed_folder=tmp_path / "packed", **options)

    def unexplained(network: Any) -> float:
        cache = QuantizedKVCache(network.config, num_blocks=6, block_size=BLOCK)
        found = logits_of(network, token_ids, cache)
        return ((found - expected).square().mean() / expected.var()).item()

    apart = load()
    again = load()
    layers = [layer for network in (apart, again) for layer in network.decoder.layers.layers]
    matrices = [matrix for layer in layers for matrix in (layer.wqkv, layer.wo, layer.w13, layer.w2)]
    assert {(matrix.quantized.num_bits, matrix.rank) for matrix in matrices} == {(4, 32)}
    assert unexplained(apart) == unexplained(again) < 0.02
    (folder / MERGED_LORA).unlink()
    summed = load()
    assert summed.decoder.layers.layers[0].wqkv.quantized.num_bits == num_bits
    if num_bits == 4:  # the sum in four bits is not what it was
        assert unexplained(summed) > 2 * unexplained(apart)


class TestRefused:
    def change(self, folder: Path, **changes: torch.Tensor | None) -> None:
        stored = load_file(folder / MERGED_LORA)
        for name, tensor in changes.items():
            if tensor is None:
                del stored[name]
            else:
                stored[name] = tensor
        save_file(stored, folder / MERGED_LORA)

    @pytest.mark.parametrize(
        ("name", "tensor"),
        [
            (SHARED[0] + STORED_A, None),
            (SHARED[0] + STORED_B, None),
            (SHARED[0] + STORED_A, torch.zeros(RANK, 32)),
            (SHARED[0] + STORED_A, torch.zeros(64)),
            (SHARED[0] + STORED_B, torch.zeros(64, RANK + 1)),
        ],
    )
    def test_a_pair_that_does_not_fit(self, folder: Path, name: str, tensor: torch.Tensor | None) -> None:
        self.change(folder, **{name: tensor})
        with pytest.raises(
            UnsupportedCheckpoint, match=r"no update that fits model\.layers\.0\.self_attn\.q_proj"
        ):
            updates_of(folder)

    def test_a_name_without_a_matrix(self, folder: Path) -> None:
        self.change(folder, **{"model.layers.9.mlp.up_proj.lora_A.weight": torch.zeros(RANK, 64)})
        with pytest.raises(UnsupportedCheckpoint, match=r"model\.layers\.9\.mlp\.up_proj.* fits no matrix"):
            updates_of(folder)

    def test_a_damaged_file(self, folder: Path) -> None:
        whole = (folder / MERGED_LORA).read_bytes()
        (folder / MERGED_LORA).write_bytes(whole[:-10])
        with pytest.raises(UnsupportedCheckpoint, match=f"{MERGED_LORA} is damaged"):
            updates_of(folder)
