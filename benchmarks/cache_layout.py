"""What it costs one layer's attention that the KV cache is in blocks: gathering against a contiguous cache.

    python -m benchmarks.cache_layout [--threads 2]

Decoding shapes of nano (9 query heads, 3 key heads, head_dim 64) in bfloat16; microseconds, medians of 25 calls.
Columns: attention over keys that are contiguous already; over blocks gathered head-major, as built; over blocks
gathered token-major, (tokens, heads, head_dim), the usual layout of GPU kernels; the gather of blocks alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

HEADS, KV_HEADS, HEAD_DIM, BLOCK = 9, 3, 64, 64


def median_us(call: Callable[[], object]) -> float:
    """Return the median time of a call in microseconds."""
    for _ in range(5):
        call()
    times = []
    for _ in range(25):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def measure(num_sequences: int, length: int) -> list[float]:
    """Return the times of the four columns."""
    dtype = torch.bfloat16
    num_blocks = num_sequences * length // BLOCK
    order = torch.randperm(num_blocks)
    head_major = torch.randn(2, KV_HEADS * num_blocks, BLOCK * HEAD_DIM).to(dtype)
    token_major = torch.randn(2, num_blocks, BLOCK * KV_HEADS * HEAD_DIM).to(dtype)
    contiguous = torch.randn(2, num_sequences, KV_HEADS, length, HEAD_DIM).to(dtype)
    index = (torch.arange(KV_HEADS)[:, None] * num_blocks + order).flatten()
    queries = torch.randn(num_sequences, KV_HEADS, HEADS // KV_HEADS, HEAD_DIM).to(dtype)
    mask = torch.zeros(num_sequences, 1, 1, length, dtype=dtype)

    def attend(keys: Tensor, values: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)

    def by_head(tensor: Tensor) -> Tensor:
        return tensor.index_select(0, index).view(KV_HEADS, num_sequences, length, HEAD_DIM).transpose(0, 1)

    def by_token(tensor: Tensor) -> Tensor:
        return tensor.index_select(0, order).view(num_sequences, length, KV_HEADS, HEAD_DIM).transpose(1, 2)

    return [
        median_us(lambda: attend(contiguous[0], contiguous[1])),
        median_us(lambda: attend(by_head(head_major[0]), by_head(head_major[1]))),
        median_us(lambda: attend(by_token(token_major[0]), by_token(token_major[1]))),
        median_us(lambda: (by_head(head_major[0]), by_head(head_major[1]))),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    print("| sequences | length | contiguous | head-major blocks | token-major blocks | gather alone |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for num_sequences in (1, 8, 32):
        for length in (256, 1024):
            times = " | ".join(f"{us:.0f}" for us in measure(num_sequences, length))
            print(f"| {num_sequences} | {length} | {times} |")


if __name__ == "__main__":
    main()
