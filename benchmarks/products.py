"""What it costs to have Intel's matrix library round alike: products of a layer of SmolLM2-135M in float32.

    python -m benchmarks.products

Runs itself with `MKL_CBWR` unset and set as the engine process has it, in turns, and prints medians in milliseconds of
three layers' products by the number of rows. docs/decisions/0015-products-that-round-alike.md.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

from mezzo.engine.launch import WORKER_ENVIRONMENT

SHAPES = [(960, 576), (576, 576), (3072, 576), (576, 1536)]
ROWS, REPEATS, ROUNDS = (4, 8, 32, 512), 30, 4


def products_ms(num_rows: int) -> float:
    """Return the median time of three times the products of a layer, in this process."""
    weights = [torch.randn(shape) for shape in SHAPES]
    inputs = {columns: torch.randn(num_rows, columns) for _, columns in SHAPES}
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(3):
            for weight in weights:
                F.linear(inputs[weight.shape[1]], weight)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def measured(mode: str | None) -> list[float]:
    """Return the times for ROWS of a process with the mode, or without any."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    environment.pop("MKL_CBWR", None)
    if mode is not None:
        environment["MKL_CBWR"] = mode
    command = [sys.executable, "-m", "benchmarks.products", "here"]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return [float(word) for word in output.split()]


def main() -> None:
    if sys.argv[1:] == ["here"]:
        print(*(products_ms(num_rows) for num_rows in ROWS))
        return
    modes = [None, WORKER_ENVIRONMENT["MKL_CBWR"]]
    runs: dict[str | None, list[list[float]]] = {mode: [] for mode in modes}
    for _ in range(ROUNDS):
        for mode in modes:
            runs[mode].append(measured(mode))
    for mode in modes:
        medians = [statistics.median(times) for times in zip(*runs[mode], strict=True)]
        shown = ", ".join(f"{rows} rows {ms:.2f} ms" for rows, ms in zip(ROWS, medians, strict=True))
        print(f"{mode or 'unset':12} {shown}")


if __name__ == "__main__":
    main()
