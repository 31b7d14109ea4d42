"""Milliseconds of an engine step, without server, HTTP or text: decoding at several batch sizes, and prefill.

    OMP_WAIT_POLICY=passive python -m benchmarks.step FOLDER [--dtype bfloat16] [--threads 2] [--busy 1]
    python -m benchmarks.step --shape 8b --device cuda --streams 1 16 64

FOLDER is a checkpoint; `--shape` makes one with random weights instead. Beside each decoding step stands what it reads
of weights and keys per second, as a share of what the device copies per second. `--busy` starts that many processes
that do nothing but use a core, as a server, a client or a desktop would. Medians over the steps of one run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.core import EngineCore
from mezzo.engine.loader import load_runner, num_cache_blocks, resolve_device, resolve_dtype
from mezzo.engine.messages import AddRequest
from mezzo.engine.runner import Runner
from mezzo.engine.sampling_params import SamplingParams
from mezzo.model.config import ModelConfig
from mezzo.model.kv_cache import KVCache
from mezzo.model.network import Network
from mezzo.model.quantized import QuantizedDecoder
from mezzo.model.quantized_kv_cache import QuantizedKVCache

PROMPT_TOKENS, NEW_TOKENS, LONG_PROMPT = 100, 40, 1500
COPIED_BYTES = 1 << 28
SHAPES = {
    # That of Ministral 3 8B's language half.
    "8b": ModelConfig(
        dim=4096, n_layers=34, head_dim=128, hidden_dim=14336, n_heads=32, n_kv_heads=8, vocab_size=131072,
        max_seq_len=8192,
    ),
    "tiny": ModelConfig(
        dim=64, n_layers=2, head_dim=16, hidden_dim=128, n_heads=4, n_kv_heads=2, vocab_size=1024, max_seq_len=4096
    ),
}  # fmt: skip


def random_runner(config: EngineConfig, shape: ModelConfig) -> Runner:
    """Make a model of a shape with small random weights, on the device and in the dtype of `config`."""
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    if device.type == "cpu":
        torch.set_num_threads(config.threads or os.cpu_count() or 1)
    with device:
        network = Network.from_config(shape, dtype).requires_grad_(False).eval()
        for parameter in network.parameters():
            parameter.normal_(std=0.02)
    num_blocks = num_cache_blocks(config, shape, shape.kv_values_per_token * dtype.itemsize, device)
    cache = KVCache(shape, num_blocks=num_blocks, block_size=config.block_size, dtype=dtype, device=device)
    return Runner(network, cache)


def copied_per_second(device: torch.device) -> float:
    """Return the bytes that the device reads and writes per second when it copies; the median of ten."""
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(11):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * COPIED_BYTES / statistics.median(times[1:])


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bytes_per_step(core: EngineCore, num_streams: int) -> int:
    """Return what a decoding step has to read: all matrices once, and the keys and values of each stream."""
    decoder, shape = core.runner.decoder, core.runner.network.config
    if isinstance(decoder, QuantizedDecoder):
        keys = num_streams * (PROMPT_TOKENS + NEW_TOKENS // 2) * QuantizedKVCache.bytes_per_token(shape)
        return core.runner.network.num_bytes + keys
    size = torch.finfo(decoder.dtype).bits // 8
    embeddings = 0 if shape.tied_embeddings else decoder.tok_embeddings.weight.numel()
    weights = sum(p.numel() for p in decoder.parameters()) - embeddings
    keys = num_streams * (PROMPT_TOKENS + NEW_TOKENS // 2) * shape.kv_values_per_token
    return int((weights + keys) * size)


@contextlib.contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Keep `number` processes busy inside the block."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def prompt(seed: int, length: int) -> list[int]:
    """Return token ids that no other seed's prompt begins with, none of them among the first, which may be special."""
    return [100 + (31 * seed + 7 * position) % 900 for position in range(length)]


def decode_ms(core: EngineCore, num_streams: int) -> float:
    """Return the median step of `num_streams` sequences that decode."""
    for seed in range(num_streams):
        core.add(
            AddRequest(
                request_id=str(seed),
                prompt_token_ids=prompt(seed, PROMPT_TOKENS),
                params=SamplingParams(max_tokens=NEW_TOKENS),
            )
        )
    times = []
    while core.has_work:
        before = core.stats.num_completion_tokens
        start = time.perf_counter()
        core.step()
        seconds = time.perf_counter() - start
        if core.stats.num_completion_tokens - before == num_streams:
            times.append(seconds)
    return 1e3 * statistics.median(times)


def prefill_ms(core: EngineCore) -> float:
    """Return the time of one long prompt, all its steps together."""
    params = SamplingParams(max_tokens=1)
    core.add(AddRequest(request_id="long", prompt_token_ids=prompt(977, LONG_PROMPT), params=params))
    start = time.perf_counter()
    while core.has_work:
        core.step()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("folder", type=Path, nargs="?")
    source.add_argument("--shape", choices=list(SHAPES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    config = EngineConfig(
        folder=str(options.folder),
        device=options.device,
        dtype=options.dtype,
        threads=options.threads,
        max_num_seqs=max(options.streams),
    )
    if options.shape:
        runner = random_runner(config, SHAPES[options.shape])
    else:
        runner = load_runner(config, lambda loaded, total: None)
    vocabulary = Vocabulary(token_bytes=(), eos_token_ids=frozenset())
    core = EngineCore(config, vocabulary, runner)
    decode_ms(core, 1)
    per_second = copied_per_second(runner.decoder.device)
    print(f"copies {per_second / 1e9:.0f} GB/s")
    with busy_processes(options.busy):
        for num_streams in options.streams:
            step_ms = decode_ms(core, num_streams)
            share = bytes_per_step(core, num_streams) / (step_ms / 1e3) / per_second
            print(
                f"{num_streams:3} streams: {step_ms:7.1f} ms a step, {1e3 * num_streams / step_ms:6.0f} tokens/s, "
                f"{share:.0%} of the bandwidth"
            )
        total_ms = prefill_ms(core)
        print(f"prefill of {LONG_PROMPT}: {total_ms:7.1f} ms, {1e3 * LONG_PROMPT / total_ms:6.0f} tokens/s")


if __name__ == "__main__":
    main()
