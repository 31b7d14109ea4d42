"""What `auto` means, what is refused, and how large the cache becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mezzo.engine import loader
from mezzo.engine.config import EngineConfig
from mezzo.engine.loader import CannotLoad, load_runner, num_cache_blocks, resolve_device, resolve_dtype
from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from tests.tiny import CPU, HF_CONFIG

MODEL = ModelConfig.from_hf(HF_CONFIG)


class TestDevice:
    def test_the_cpu_is_always_there(self) -> None:
        assert resolve_device("cpu") == CPU

    def test_auto_is_a_device_that_exists(self) -> None:
        device = resolve_device("auto")
        assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
        torch.zeros(1, device=device)

    @pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cpu cpu"])
    def test_a_name_that_is_none_is_refused(self, name: str) -> None:
        with pytest.raises(CannotLoad, match="is not known; use auto, cpu, cuda"):
            resolve_device(name)

    def test_a_cuda_device_that_is_not_there_is_refused_with_how_many_there_are(self) -> None:
        count = torch.cuda.device_count()
        with pytest.raises(CannotLoad, match=f"is not there: this machine has {count} CUDA devices"):
            resolve_device(f"cuda:{count}")

    @pytest.mark.parametrize("name", ["meta", "xla", "vulkan"])
    def test_other_devices_of_torch_are_refused(self, name: str) -> None:
        with pytest.raises(CannotLoad, match=f"'{name}' is not supported"):
            resolve_device(name)


class TestDtype:
    @pytest.mark.parametrize(
        ("name", "dtype"),
        [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
    )
    def test_by_name(self, name: str, dtype: torch.dtype) -> None:
        assert resolve_dtype(name, CPU) is dtype

    @pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
    def test_auto_is_bfloat16_only_where_the_cpu_multiplies_it(
        self, monkeypatch: pytest.MonkeyPatch, native: bool, dtype: torch.dtype
    ) -> None:
        monkeypatch.setattr(loader, "_cpu_multiplies_bfloat16", lambda: native)
        assert resolve_dtype("auto", CPU) is dtype


class TestCacheSize:
    """A token of the tiny model is 2 layers x 2 heads x 8 numbers, twice: 64, or 256 bytes in float32."""

    def blocks(self, **changes: Any) -> int:
        config = EngineConfig(folder="f", **{"max_num_seqs": 4, "block_size": 16, **changes})
        return num_cache_blocks(config, MODEL, 4 * MODEL.kv_values_per_token, CPU)

    @pytest.mark.parametrize(("tokens", "blocks"), [(1, 1), (16, 1), (17, 2), (1000, 63)])
    def test_configured_positions_are_rounded_up_to_blocks(self, tokens: int, blocks: int) -> None:
        assert self.blocks(kv_cache_tokens=tokens) == blocks

    @pytest.mark.parametrize("tokens", [1025, 10**9, None])
    def test_never_more_than_the_batch_can_fill(self, tokens: int | None) -> None:
        assert self.blocks(kv_cache_tokens=tokens) == 4 * 256 // 16

    @pytest.mark.parametrize(
        ("available", "blocks"), [(4 * 4096 * 5, 5), (4 * 4096 * 6 - 4, 5), (4 * 4096, 1)]
    )
    def test_a_quarter_of_the_free_memory_is_taken(
        self, monkeypatch: pytest.MonkeyPatch, available: int, blocks: int
    ) -> None:
        monkeypatch.setattr(loader, "_available_memory", lambda: available)
        assert self.blocks() == blocks

    @pytest.mark.parametrize("available", [4 * 4095, 0, -5])
    def test_without_memory_for_one_block_it_cannot_load(
        self, monkeypatch: pytest.MonkeyPatch, available: int
    ) -> None:
        monkeypatch.setattr(loader, "_available_memory", lambda: available)
        with pytest.raises(CannotLoad, match="one block of 16 tokens is 4096 bytes"):
            self.blocks()

    def test_this_machine_has_some_memory(self) -> None:
        assert loader._available_memory() > 1 << 20


class TestLoadRunner:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_the_runner_is_as_configured(self, tiny_folder: Path, dtype: torch.dtype) -> None:
        name = str(dtype).removeprefix("torch.")
        config = EngineConfig(
            folder=str(tiny_folder),
            device="cpu",
            dtype=name,
            threads=1,
            kv_cache_tokens=100,
            block_size=16,  # type: ignore[arg-type]
        )
        progress: list[tuple[int, int]] = []
        runner = load_runner(config, lambda loaded, total: progress.append((loaded, total)))
        assert runner.decoder.dtype is dtype
        assert torch.get_num_threads() == 1
        assert (runner.cache.num_blocks, runner.cache.block_size) == (7, 16)
        assert progress == sorted(progress)
        assert progress[-1] == (progress[0][1],) * 2, "the last report says that all is loaded"

    def test_a_folder_without_a_checkpoint_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnsupportedCheckpoint, match=r"has no config\.json"):
            load_runner(EngineConfig(folder=str(tmp_path), device="cpu"), lambda loaded, total: None)
