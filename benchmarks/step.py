"""Milliseconds of an engine step, without server, HTTP or text: decoding at several batch sizes, and prefill.

    OMP_WAIT_POLICY=passive python -m benchmarks.step FOLDER [--dtype bfloat16] [--threads 2] [--busy 1] [--save]
    python -m benchmarks.step --shape 8b --device cuda --streams 1 16 64

FOLDER is a checkpoint; `--shape` makes one with random weights instead. Beside the figures stand their shares of what
the machine can do: of a decoding step, what it has to read of weights and keys beside what the device copies per
second; of prefill, its operations beside those of PyTorch's own product of large matrices, in float32 on a CPU and in
the model's dtype elsewhere. Of each decoding step, also what is spent outside the network: on scheduling, sampling and
text. `--busy` starts that many processes that do nothing but use a core, as a server, a client or a desktop would.
Medians over the steps, and over `--rounds` in which everything, the machine too, has its turn. `--save` records them in
benchmarks/results.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import torch

from benchmarks.records import save
from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.core import EngineCore
from mezzo.engine.loader import load_runner, num_cache_blocks, resolve_device, resolve_dtype
from mezzo.engine.messages import AddRequest
from mezzo.engine.runner import Runner, StepResult
from mezzo.engine.sampling_params import SamplingParams
from mezzo.engine.scheduler import ScheduledSequence
from mezzo.model.config import ModelConfig
from mezzo.model.kv_cache import KVCache
from mezzo.model.network import Network
from mezzo.model.packed_weights import QuantizedNetwork
from mezzo.model.quantized_kv_cache import QuantizedKVCache

PROMPT_TOKENS, NEW_TOKENS, LONG_PROMPT = 100, 40, 1500
COPIED_BYTES, MATRIX_SIZE = 1 << 28, 2048
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
    return 2 * COPIED_BYTES / median_s(lambda: target.copy_(source), device)


def multiplied_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations per second of a product of large matrices, a multiply-add being two; the median of ten."""
    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE, dtype=dtype, device=device)
    return 2 * MATRIX_SIZE**3 / median_s(lambda: matrix @ matrix, device)


def median_s(work: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(11):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bytes_per_step(core: EngineCore, num_streams: int) -> int:
    """Return what a decoding step has to read: all matrices once, and the keys and values of each stream."""
    network = core.runner.network
    shape = network.config
    num_keys = num_streams * (PROMPT_TOKENS + NEW_TOKENS // 2)
    if isinstance(network, QuantizedNetwork):
        vision = 0 if network.vision is None else sum(p.nbytes for p in network.vision.parameters())
        return network.num_bytes - vision + num_keys * QuantizedKVCache.bytes_per_token(shape)
    decoder = network.decoder
    embeddings = 0 if shape.tied_embeddings else decoder.tok_embeddings.weight.numel()
    weights = sum(p.numel() for p in decoder.parameters()) - embeddings
    return int((weights + num_keys * shape.kv_values_per_token) * decoder.dtype.itemsize)


def prefill_operations(shape: ModelConfig) -> int:
    """Return what a prompt of LONG_PROMPT tokens takes in all layers, attention within a window not told apart."""
    attention = 4 * shape.n_layers * shape.n_heads * shape.head_dim * (LONG_PROMPT * (LONG_PROMPT + 1) // 2)
    return LONG_PROMPT * shape.flops_per_token + attention


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


def decode_ms(core: EngineCore, num_streams: int, round_number: int) -> tuple[float, float]:
    """Return the median step of `num_streams` sequences that decode, and the median of what is not the network."""
    for number in range(num_streams):
        core.add(
            AddRequest(
                request_id=str(number),
                prompt_token_ids=prompt(number + 64 * round_number, PROMPT_TOKENS),
                params=SamplingParams(max_tokens=NEW_TOKENS),
            )
        )
    steps, outside = [], []
    with timed_forward(core.runner) as forward_s:
        while core.has_work:
            before = core.stats.num_completion_tokens
            forward_s.clear()
            start = time.perf_counter()
            core.step()
            seconds = time.perf_counter() - start
            if core.stats.num_completion_tokens - before == num_streams:
                steps.append(seconds)
                outside.append(seconds - sum(forward_s))
    return 1e3 * statistics.median(steps), 1e3 * statistics.median(outside)


@contextlib.contextmanager
def timed_forward(runner: Runner) -> Iterator[list[float]]:
    """Have the list collect the seconds of each pass through the network, inside the block."""
    seconds: list[float] = []
    forward = runner.forward

    def timed(scheduled: list[ScheduledSequence]) -> StepResult:
        start = time.perf_counter()
        result = forward(scheduled)
        synchronize(runner.decoder.device)
        seconds.append(time.perf_counter() - start)
        return result

    runner.forward = timed  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        del runner.forward  # the class's own again


def prefill_ms(core: EngineCore, round_number: int) -> float:
    """Return the time of one long prompt, all its steps together."""
    token_ids = prompt(977 + round_number, LONG_PROMPT)
    core.add(AddRequest(request_id="long", prompt_token_ids=token_ids, params=SamplingParams(max_tokens=1)))
    start = time.perf_counter()
    while core.has_work:
        core.step()
    return 1e3 * (time.perf_counter() - start)


class Decoding(msgspec.Struct, frozen=True):
    """Steps of so many streams: each round's median, and over the rounds the median of what is derived from it.

    outside_share     of the step, what is not spent in the network
    bandwidth_share   of what the machine copied in the same round
    """

    streams: int
    step_ms: list[float]
    outside_share: float
    bandwidth_share: float


class Prefill(msgspec.Struct, frozen=True):
    """Each round's time of the long prompt, and the median share of what the machine multiplied in the same round."""

    tokens: int
    total_ms: list[float]
    multiplication_share: float


def measure(
    core: EngineCore, streams: Sequence[int], rounds: int
) -> tuple[list[Decoding], Prefill, list[float], list[float]]:
    """Return also what the machine copied and multiplied per second, round by round."""
    device = core.runner.decoder.device
    dtype = torch.float32 if device.type == "cpu" else core.runner.decoder.dtype
    steps: dict[int, list[tuple[float, float, float]]] = {number: [] for number in streams}
    prompts, copied, multiplied = [], [], []
    decode_ms(core, 1, 0)
    for round_number in range(1, rounds + 1):
        copied.append(copied_per_second(device))
        multiplied.append(multiplied_per_second(device, dtype))
        for num_streams in streams:
            step_ms, outside_ms = decode_ms(core, num_streams, round_number)
            bandwidth = bytes_per_step(core, num_streams) / (step_ms / 1e3) / copied[-1]
            steps[num_streams].append((step_ms, outside_ms / step_ms, bandwidth))
        prompts.append(prefill_ms(core, round_number))
    decoding = [
        Decoding(
            streams=num_streams,
            step_ms=[step for step, _, _ in rows],
            outside_share=statistics.median(outside for _, outside, _ in rows),
            bandwidth_share=statistics.median(share for _, _, share in rows),
        )
        for num_streams, rows in steps.items()
    ]
    operations = prefill_operations(core.runner.network.config)
    shares = [operations / (ms / 1e3) / most for ms, most in zip(prompts, multiplied, strict=True)]
    return decoding, Prefill(LONG_PROMPT, prompts, statistics.median(shares)), copied, multiplied


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true")
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
    with busy_processes(options.busy):
        decoding, prefill, copied, multiplied = measure(core, options.streams, options.rounds)
    number_format = runner.network.number_format
    print(
        f"{number_format}; the machine copies {statistics.median(copied) / 1e9:.0f} GB/s "
        f"and multiplies {statistics.median(multiplied) / 1e9:.0f} GFLOP/s"
    )
    for row in decoding:
        step_ms = statistics.median(row.step_ms)
        print(
            f"{row.streams:3} streams: {step_ms:7.1f} ms a step, {1e3 * row.streams / step_ms:6.0f} tokens/s, "
            f"{row.bandwidth_share:.0%} of the bandwidth, {row.outside_share:.1%} outside the network"
        )
    total_ms = statistics.median(prefill.total_ms)
    print(
        f"prefill of {LONG_PROMPT}: {total_ms:7.1f} ms, {1e3 * LONG_PROMPT / total_ms:6.0f} tokens/s, "
        f"{prefill.multiplication_share:.0%} of the multiplication"
    )
    if options.save:
        path = save(
            "step",
            checkpoint=options.shape or options.folder.name,
            number_format=number_format,
            rounds=options.rounds,
            copied_bytes_per_s=copied,
            multiplied_operations_per_s=multiplied,
            decoding=decoding,
            prefill=prefill,
        )
        print(path)


if __name__ == "__main__":
    main()
