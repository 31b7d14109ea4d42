"""Which kernel multiplies fastest by the number of rows: PyTorch's own, and mezzo's.

    OMP_WAIT_POLICY=passive python -m benchmarks.kernels [--rows 1 8 32 512] [--threads 2]

The matrix products of all layers of SmolLM2-135M with random weights, so that each matrix comes from memory as in a
step; milliseconds, medians. What takes seconds is repeated less; what a build of PyTorch does not have is a dash.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzo.model.kernels.library import Kernels, KernelsMissing, Matrix
from mezzo.model.kernels.packing import GROUP, pack

LAYERS, SHAPES = 30, [(960, 576), (576, 576), (3072, 576), (576, 1536)]
Products = Callable[[], object]
_LONG_S, _REPEATS = 2.0, 7


def plain(dtype: torch.dtype, rows: int) -> Products:
    weights = [torch.randn(shape, dtype=dtype) for shape in LAYERS * SHAPES]
    inputs = {columns: torch.randn(rows, columns, dtype=dtype) for _, columns in SHAPES}
    return lambda: [F.linear(inputs[w.shape[1]], w) for w in weights]


def torch_int4(rows: int) -> Products:
    """Weights in four bits with inputs in bfloat16, `_weight_int4pack_mm_for_cpu`."""
    weights = []
    for outputs, inputs in LAYERS * SHAPES:
        q = torch.randint(0, 16, (outputs, inputs), dtype=torch.int32)
        scales = torch.rand(inputs // GROUP, outputs, 2, dtype=torch.bfloat16)
        weights.append((torch._convert_weight_to_int4pack_for_cpu(q, 1), scales))
    x = {columns: torch.randn(rows, columns, dtype=torch.bfloat16) for _, columns in SHAPES}
    multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
    return lambda: [multiply(x[s.shape[0] * GROUP], w, GROUP, s) for w, s in weights]


def torch_int8_weights(rows: int) -> Products:
    """Weights in eight bits with inputs in bfloat16, `_weight_int8pack_mm`."""
    weights = [
        (torch.randint(-127, 128, shape, dtype=torch.int8), torch.rand(shape[0], dtype=torch.bfloat16))
        for shape in LAYERS * SHAPES
    ]
    x = {columns: torch.randn(rows, columns, dtype=torch.bfloat16) for _, columns in SHAPES}
    multiply = torch._weight_int8pack_mm
    return lambda: [multiply(x[w.shape[1]], w, s) for w, s in weights]


def torch_int_mm(rows: int) -> Products:
    """Both in eight bits, `_int_mm`, without the rounding of inputs and the scaling of results."""
    weights = [torch.randint(-127, 128, shape, dtype=torch.int8).t() for shape in LAYERS * SHAPES]
    x = {columns: torch.randint(-127, 128, (rows, columns), dtype=torch.int8) for _, columns in SHAPES}
    return lambda: [torch._int_mm(x[w.shape[0]], w) for w in weights]


def torch_dynamic(rows: int) -> Products:
    """Both in eight bits, `quantized.linear_dynamic`; one scale for all inputs of all rows."""
    prepack, multiply = torch.ops.quantized.linear_prepack, torch.ops.quantized.linear_dynamic
    weights = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its way of making such tensors is deprecated
        for shape in LAYERS * SHAPES:
            zero = torch.zeros(shape[0], dtype=torch.long)
            q = torch.quantize_per_channel(
                torch.randn(shape), torch.full((shape[0],), 0.02), zero, 0, torch.qint8
            )
            weights.append((prepack(q, None), shape[1]))
    x = {columns: torch.randn(rows, columns) for _, columns in SHAPES}
    return lambda: [multiply(x[columns], w) for w, columns in weights]


def own(num_bits: int, kernels: Kernels, rows: int) -> Products:
    matrices = [Matrix(pack(torch.randn(shape), num_bits)) for shape in LAYERS * SHAPES]
    x: dict[int, Tensor] = {columns: torch.randn(rows, columns) for _, columns in SHAPES}
    return lambda: [kernels.linear(x[m.quantized.num_inputs], m) for m in matrices]


def median_ms(products: Products) -> float:
    times: list[float] = []
    products()
    while len(times) < _REPEATS and sum(times) < _LONG_S:
        start = time.perf_counter()
        products()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 512])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    made: dict[str, Callable[[int], Products]] = {
        "float32": lambda rows: plain(torch.float32, rows),
        "bfloat16": lambda rows: plain(torch.bfloat16, rows),
        "PyTorch int4": torch_int4,
        "PyTorch int8 weights": torch_int8_weights,
        "PyTorch `_int_mm`": torch_int_mm,
        "PyTorch dynamic int8": torch_dynamic,
    }
    try:
        kernels = Kernels(args.threads)
        made |= {f"mezzo int{n}": lambda rows, n=n: own(n, kernels, rows) for n in (8, 4)}  # type: ignore[misc]
    except KernelsMissing as error:
        print(f"without mezzo's: {error}")
    print("| | " + " | ".join(f"{rows} rows" for rows in args.rows) + " |")
    print("| --- |" + " ---: |" * len(args.rows))
    with torch.inference_mode():
        for name, make in made.items():
            cells = []
            for rows in args.rows:
                try:
                    cells.append(f"{median_ms(make(rows)):.3g}")
                except (RuntimeError, AttributeError):
                    cells.append("–")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
