"""Milliseconds of an engine step, without server, HTTP or text: decoding at several batch sizes, and prefill.

    OMP_WAIT_POLICY=passive python -m benchmarks.step FOLDER [--dtype bfloat16] [--threads 2] [--busy 1]

FOLDER is a checkpoint. `--busy` starts that many processes that do nothing but use a core, as a server, a client or
a desktop would. Medians over the steps of one run.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.core import EngineCore
from mezzo.engine.loader import load_runner
from mezzo.engine.messages import AddRequest
from mezzo.engine.sampling_params import SamplingParams

PROMPT_TOKENS, NEW_TOKENS, LONG_PROMPT = 100, 40, 1500


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
    """Return token ids that no other seed's prompt begins with."""
    return [(31 * seed + 7 * position) % 1000 for position in range(length)]


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
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    config = EngineConfig(folder=str(options.folder), dtype=options.dtype, threads=options.threads)
    runner = load_runner(config, lambda loaded, total: None)
    vocabulary = Vocabulary(token_bytes=(), eos_token_ids=frozenset())
    core = EngineCore(config, vocabulary, runner)
    decode_ms(core, 1)
    with busy_processes(options.busy):
        for num_streams in options.streams:
            step_ms = decode_ms(core, num_streams)
            print(
                f"{num_streams:3} streams: {step_ms:7.1f} ms a step, {1e3 * num_streams / step_ms:6.0f} tokens/s"
            )
        total_ms = prefill_ms(core)
        print(f"prefill of {LONG_PROMPT}: {total_ms:7.1f} ms, {1e3 * LONG_PROMPT / total_ms:6.0f} tokens/s")


if __name__ == "__main__":
    main()
