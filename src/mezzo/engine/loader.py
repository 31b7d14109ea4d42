"""From an `EngineConfig` to a model and a cache on a device: what `auto` means, and how much memory to take."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from mezzo.engine.config import EngineConfig
from mezzo.engine.runner import Runner
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.model.kernels.library import Kernels, KernelsMissing, check_kernels
from mezzo.model.kv_cache import KVCache
from mezzo.model.packed_weights import load_quantized, why_not_quantized
from mezzo.model.quantized_kv_cache import QuantizedKVCache

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
    if device.type == "cpu":
        torch.set_num_threads(_num_threads(config))
    folder = Path(config.folder)
    model = ModelConfig.from_folder(folder)
    why_not = _why_not_quantized(config, model, device)
    if config.dtype in ("int8", "int4") and why_not is not None:
        raise CannotLoad(f"dtype {config.dtype!r} cannot be used: {why_not}")
    if config.dtype in ("int8", "int4") or (config.dtype == "auto" and why_not is None):
        return _quantized_runner(config, folder, model, on_progress)
    dtype = resolve_dtype(config.dtype, device)
    network = load_network(folder, model, dtype=dtype, device=device, on_progress=on_progress)
    token_bytes = model.kv_values_per_token * dtype.itemsize
    cache = KVCache(
        model,
        num_blocks=num_cache_blocks(config, model, token_bytes, device),
        block_size=config.block_size,
        dtype=dtype,
        device=device,
    )
    return Runner(network, cache)


def _why_not_quantized(config: EngineConfig, model: ModelConfig, device: torch.device) -> str | None:
    if device.type != "cpu":
        return f"it is for the CPU, and the device is {device}"
    try:
        check_kernels()
    except KernelsMissing as error:
        return f"there are no kernels for it: {error}"
    return why_not_quantized(model, config.block_size)


def _quantized_runner(
    config: EngineConfig, folder: Path, model: ModelConfig, on_progress: Callable[[int, int], None]
) -> Runner:
    number_format = "int8" if config.dtype == "auto" else config.dtype
    try:
        network = load_quantized(
            folder,
            model,
            num_bits=4 if number_format == "int4" else 8,
            kernels=Kernels(_num_threads(config)),
            packed_folder=None if config.packed_folder is None else Path(config.packed_folder),
            on_progress=on_progress,
            on_warning=lambda message: print(f"mezzo engine: {message}", file=sys.stderr),  # noqa: T201
        )
    except ValueError as error:
        raise CannotLoad(f"the weights cannot be {number_format}: {error}") from error
    token_bytes = QuantizedKVCache.bytes_per_token(model)
    num_blocks = num_cache_blocks(config, model, token_bytes, network.decoder.device)
    cache = QuantizedKVCache(model, num_blocks=num_blocks, block_size=config.block_size)
    return Runner(network, cache)


def _num_threads(config: EngineConfig) -> int:
    if config.threads is not None:
        return config.threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    slower than float32 and less exact. That is where nothing is quantized; see `load_runner`.
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


def num_cache_blocks(config: EngineConfig, model: ModelConfig, token_bytes: int, device: torch.device) -> int:
    """Return how many blocks the cache gets, `token_bytes` being those of a position in all layers.

    Never more than every sequence of the batch could fill, never fewer than one block. Raises: CannotLoad if not
    even one block fits.
    """
    most = -(-model.max_seq_len // config.block_size) * config.max_num_seqs
    if config.kv_cache_tokens is not None:
        return min(most, -(-config.kv_cache_tokens // config.block_size))
    block_bytes = config.block_size * token_bytes
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
