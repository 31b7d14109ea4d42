"""From an `EngineConfig` to a model and a cache on a device: what `auto` means, and how much memory to take."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from mezzo.engine.config import EngineConfig
from mezzo.engine.runner import Runner
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.model.kv_cache import KVCache

# Of the memory that is free once the weights are there. The CPU shares it with everything else on the machine; on
# a GPU the rest is left to activations.
_CACHE_SHARE_CPU = 0.25
_CACHE_SHARE_GPU = 0.8


class CannotLoad(Exception):
    """The configuration cannot be met on this machine; the message is for the operator."""


def load_runner(config: EngineConfig, on_progress: Callable[[int, int], None]) -> Runner:
    """Load weights and allocate the cache.

    Raises: CannotLoad, or UnsupportedCheckpoint of `mezzo.model`.
    """
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    if device.type == "cpu":
        torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                              else config.threads or os.cpu_count() or 1)  # fmt: skip
    folder = Path(config.folder)
    model_config = ModelConfig.from_folder(folder)
    network = load_network(folder, model_config, dtype=dtype, device=device, on_progress=on_progress)
    cache = KVCache(
        model_config,
        num_blocks=num_cache_blocks(config, model_config, dtype, device),
        block_size=config.block_size,
        dtype=dtype,
        device=device,
    )
    return Runner(network, cache)


def resolve_device(name: str) -> torch.device:
    """Turn a device name into a device that exists.

    `auto` is the first CUDA device if there is one, else the CPU. Raises: CannotLoad.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise CannotLoad(f"device {name!r} is not known; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CannotLoad(
            f"device {name!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise CannotLoad("device 'mps' is not there")
    if device.type not in ("cpu", "cuda", "mps"):
        raise CannotLoad(f"device {name!r} is not supported; use auto, cpu, cuda, cuda:N or mps")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn a dtype name into a dtype.

    `auto` is bfloat16 where the device multiplies it natively, else float32 (float16 on mps): emulated bfloat16 is
    slower than float32 and less exact.
    """
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def num_cache_blocks(
    config: EngineConfig, model: ModelConfig, dtype: torch.dtype, device: torch.device
) -> int:
    """Return how many blocks the cache gets.

    Never more than every sequence of the batch could fill, never fewer than one block. Raises: CannotLoad if not
    even one block fits.
    """
    most = -(-model.max_seq_len // config.block_size) * config.max_num_seqs
    if config.kv_cache_tokens is not None:
        return min(most, -(-config.kv_cache_tokens // config.block_size))
    block_bytes = config.block_size * model.kv_values_per_token * torch.finfo(dtype).bits // 8
    if device.type == "cuda":
        share = torch.cuda.mem_get_info(device)[0] * _CACHE_SHARE_GPU
    else:
        share = _available_memory() * _CACHE_SHARE_CPU
    blocks = min(most, int(share) // block_bytes)
    if blocks < 1:
        raise CannotLoad(
            f"no memory for the KV cache: one block of {config.block_size} tokens is {block_bytes} bytes"
        )
    return blocks


def _available_memory() -> int:
    """Bytes that can be used without swapping: the kernel's estimate within the container's limit."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123 - not a path anyone chose
            fields = dict(line.split(":", 1) for line in lines)
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text("ascii").strip()
        stat = dict(
            line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text("ascii").splitlines()
        )
        # Files that were read stay in memory until somebody needs it: they count as used, and are not.
        return (
            available
            if limit == "max"
            else min(available, int(limit) - int(used) + int(stat["inactive_file"]))
        )
    except (OSError, KeyError, ValueError):
        return available
