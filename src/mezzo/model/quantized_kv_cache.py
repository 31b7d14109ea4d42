"""The KV cache in eight bits, as the kernels read and write it (kernels/csrc/attention.c)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mezzo.model.config import ModelConfig
from mezzo.model.kernels.library import Heads


class QuantizedKVCache:
    """Keys and values of all layers, in `num_blocks` blocks of `block_size` positions.

    A position's key of one head is int8 with one float32 scale, and so is its value: a quarter of float32's memory and
    of what a decoding step reads of it. Starts as zeros; pages that were never written cost neither time nor memory.
    """

    def __init__(self, config: ModelConfig, *, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.heads = Heads(
            n_heads=config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            block_size=block_size,
            window=config.sliding_window,
        )
        shape = (config.n_layers, config.n_kv_heads, num_blocks, self.heads.record_bytes)
        self.data: Tensor = torch.from_numpy(np.zeros(shape, dtype=np.uint8))
        """(layers, key heads, blocks, bytes of a record)"""

    @staticmethod
    def bytes_per_token(config: ModelConfig) -> int:
        """Return the bytes of one position in all layers."""
        return 2 * config.n_layers * config.n_kv_heads * (config.head_dim + torch.float32.itemsize)

    def copy_blocks(self, sources: list[int], targets: list[int]) -> None:
        """Copy whole blocks in every layer; for a sequence that forks in the middle of a block."""
        self.data[:, :, targets] = self.data[:, :, sources]

    @property
    def num_bytes(self) -> int:
        """Bytes of address space; only the written part is resident."""
        return self.data.numel()
