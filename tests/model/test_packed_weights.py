"""The quantized decoder: the same network as in float32, the same bits in any batch, and packed only once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mezzo.engine.config import EngineConfig
from mezzo.engine.loader import CannotLoad, load_runner
from mezzo.model import packed_weights
from mezzo.model.config import ModelConfig
from mezzo.model.kernels import library
from mezzo.model.kernels.library import Kernels, KernelsMissing, check_kernels
from mezzo.model.kv_cache import KVCache
from mezzo.model.packed_weights import QuantizedNetwork, load_quantized, why_not_quantized
from mezzo.model.quantized_kv_cache import QuantizedKVCache
from tests import tiny
from tests.model.quantized import BLOCK, SHAPE, logits_of

try:
    check_kernels()
except KernelsMissing as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("quantized"), **SHAPE)


def load(folder: Path, packed_folder: Path | None = None, **options: Any) -> QuantizedNetwork:
    config = ModelConfig.from_folder(folder)
    options = {"num_bits": 8, "kernels": Kernels(1)} | options
    return load_quantized(folder, config, packed_folder=packed_folder, **options)


@pytest.mark.parametrize(("num_bits", "most"), [(8, 0.05), (4, 0.7)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"model_type": "mistral", "sliding_window": 24},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    ],
)
def test_logits_are_nearly_those_of_float32(
    tmp_path: Path, changes: dict[str, Any], num_bits: int, most: float
) -> None:
    folder = tiny.write_checkpoint(tmp_path, **SHAPE | changes)
    exact = tiny.load_with_eyes(folder)
    cache = KVCache(exact.config, num_blocks=6, block_size=BLOCK, dtype=torch.float32, device=tiny.CPU)
    token_ids = list(b"A text of some length, over more than a few blocks of the cache.")
    expected = logits_of(exact, token_ids, cache)
    network = load(folder, num_bits=num_bits)
    found = logits_of(network, token_ids, QuantizedKVCache(network.config, num_blocks=6, block_size=BLOCK))
    assert found.shape == expected.shape
    unexplained = (found - expected).square().mean() / expected.var()
    assert unexplained < most
    assert unexplained > 0


def test_texts_are_the_same_alone_and_in_a_batch(folder: Path) -> None:
    network = load(folder)
    prompts = [bytes([65 + i]) * length for i, length in enumerate((1, 5, 31, 33, 70, 2))]

    def answers(cores: list[list[int]]) -> dict[int, str]:
        found = {}
        for numbers in cores:
            core = tiny.make_core(network, num_blocks=100, max_step_tokens=32)
            for number in numbers:
                core.add(tiny.make_request(str(number), prompts[number], temperature=number % 2, seed=7))
            collected = tiny.Collected()
            while core.has_work:
                collected.take(core.step())
            found |= {number: collected.texts[str(number), 0] for number in numbers}
        return found

    alone = answers([[number] for number in range(len(prompts))])
    assert answers([list(range(len(prompts)))]) == alone
    assert len(set(alone.values())) > 1


def test_further_choices_fork_in_the_middle_of_a_block(folder: Path) -> None:
    core = tiny.make_core(load(folder))
    core.add(tiny.make_request("r", b"x" * 21, n=3, temperature=0))
    collected = tiny.Collected()
    while core.has_work:
        collected.take(core.step())
    assert len({collected.texts["r", index] for index in range(3)}) == 1


def test_images(tmp_path: Path) -> None:
    text = tiny.MULTIMODAL_CONFIG["text_config"] | SHAPE
    folder = tiny.write_checkpoint(tmp_path / "c", **tiny.MULTIMODAL_CONFIG | {"text_config": text})
    kept = load(folder, tmp_path / "packed")
    exact = tiny.load_with_eyes(folder)
    assert kept.vision is not None
    assert exact.vision is not None
    for name, parameter in exact.vision.named_parameters():
        assert torch.equal(dict(kept.vision.named_parameters())[name], parameter), name


def test_the_bytes_of_a_position_are_those_of_the_cache(folder: Path) -> None:
    config = ModelConfig.from_folder(folder)
    cache = QuantizedKVCache(config, num_blocks=3, block_size=BLOCK)
    assert cache.num_bytes == 3 * BLOCK * QuantizedKVCache.bytes_per_token(config)


class TestKept:
    def test_packed_once_then_read(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token_ids = list(b"Hello there")
        first = load(folder, tmp_path)
        expected = logits_of(first, token_ids, QuantizedKVCache(first.config, num_blocks=6, block_size=BLOCK))

        def refuse(*args: object, **options: object) -> None:
            raise AssertionError("the checkpoint is read again")

        monkeypatch.setattr(packed_weights, "load_network", refuse)
        again = load(folder, tmp_path)
        found = logits_of(again, token_ids, QuantizedKVCache(again.config, num_blocks=6, block_size=BLOCK))
        assert torch.equal(found, expected)
        assert again.num_bytes == first.num_bytes

    def test_other_weights_replace_those_of_before(self, tmp_path: Path) -> None:
        folder = tiny.write_checkpoint(tmp_path / "c", **SHAPE)
        packed = tmp_path / "packed"
        before = load(folder, packed)
        weights = load_file(folder / "model.safetensors")
        save_file({name: 2 * weight for name, weight in weights.items()}, folder / "model.safetensors")
        os.utime(folder / "model.safetensors", (1, 1))
        after = load(folder, packed)
        assert len(list(packed.iterdir())) == 1
        assert not torch.equal(before.decoder.norm.weight, after.decoder.norm.weight)

    def test_formats_stand_side_by_side(self, folder: Path, tmp_path: Path) -> None:
        sizes = [load(folder, tmp_path, num_bits=num_bits).num_bytes for num_bits in (8, 4)]
        assert len(list(tmp_path.iterdir())) == 2
        assert sizes[1] < sizes[0]

    def test_a_damaged_file_is_made_anew_and_told(self, folder: Path, tmp_path: Path) -> None:
        load(folder, tmp_path)
        (path,) = tmp_path.iterdir()
        whole = path.read_bytes()
        path.write_bytes(whole[:-100])
        told: list[str] = []
        load(folder, tmp_path, on_warning=told.append)
        assert len(told) == 1
        assert "damaged" in told[0]
        assert path.read_bytes() == whole

    def test_a_place_that_cannot_be_written_is_told(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        told: list[str] = []
        network = load(folder, tmp_path / "file", on_warning=told.append)
        assert network.num_bytes > 0
        assert len(told) == 1
        assert "could not be kept" in told[0]


class TestChoice:
    def runner(self, folder: Path, **choices: Any) -> Any:
        config = EngineConfig(folder=str(folder), kv_cache_tokens=64, **choices)
        return load_runner(config, lambda _loaded, _total: None)

    def test_auto_quantizes_on_the_cpu(self, folder: Path) -> None:
        assert self.runner(folder, device="cpu").network.number_format == "int8"

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
    def test_by_name(self, folder: Path, dtype: Any) -> None:
        assert self.runner(folder, device="cpu", dtype=dtype).network.number_format == dtype

    def test_shapes_that_the_kernels_do_not_know(self, tmp_path: Path) -> None:
        folder = tiny.write_checkpoint(tmp_path)
        assert self.runner(folder, device="cpu").network.number_format in ("float32", "bfloat16")
        with pytest.raises(CannotLoad, match="'int8' cannot be used: heads of 8"):
            self.runner(folder, device="cpu", dtype="int8")

    def test_blocks_that_the_kernels_do_not_know(self, folder: Path) -> None:
        with pytest.raises(CannotLoad, match="blocks of 24 positions"):
            self.runner(folder, device="cpu", dtype="int4", block_size=24)

    def test_widths(self) -> None:
        config = ModelConfig.from_hf(tiny.HF_CONFIG | SHAPE | {"intermediate_size": 100})
        assert "not all multiples of 32" in (why_not_quantized(config, 64) or "")

    def test_without_kernels(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        library._library.cache_clear()
        monkeypatch.setattr(library, "LIBRARY", tmp_path / "none.so")
        try:
            assert self.runner(folder, device="cpu").network.number_format in ("float32", "bfloat16")
            with pytest.raises(CannotLoad, match="needs a C compiler"):
                self.runner(folder, device="cpu", dtype="int8")
        finally:
            library._library.cache_clear()

    def test_weights_beyond_float16(self, tmp_path: Path) -> None:
        folder = tiny.write_checkpoint(tmp_path, **SHAPE)
        weights = load_file(folder / "model.safetensors")
        weights["model.layers.0.mlp.up_proj.weight"][3, 3] = 1e9
        save_file(weights, folder / "model.safetensors")
        with pytest.raises(CannotLoad, match="cannot be int8: a weight is not finite, or beyond float16"):
            self.runner(folder, device="cpu", dtype="int8")
