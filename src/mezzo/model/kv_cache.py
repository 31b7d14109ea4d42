"""The KV cache: keys and values of every token that a sequence has computed, in blocks.

Layout of one layer's keys (values alike): (n_kv_heads, num_blocks, block_size, head_dim). Heads come first, so
that the blocks of a sequence, gathered by one row copy per head and block, are keys in the shape attention reads,
(n_kv_heads, tokens, head_dim), without a further transpose. Which block belongs to whom is decided elsewhere
(`mezzo.engine.blocks`); here a slot is `block * block_size + offset`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mezzo.model.config import ModelConfig


class KVCache:
    """Keys and values of all layers, `num_blocks` blocks of `block_size` positions each.

    Starts as zeros, never as uninitialised memory: positions that a mask hides are still multiplied by zero,
    and zero times NaN is NaN. On the CPU, pages that were never written cost neither time nor memory.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.num_heads = config.n_kv_heads
        self.head_dim = config.head_dim
        shape = (config.n_kv_heads * num_blocks * block_size, config.head_dim)
        self._keys = [_zeros(shape, dtype, device) for _ in range(config.n_layers)]
        self._values = [_zeros(shape, dtype, device) for _ in range(config.n_layers)]

    def write_index(self, slots: Tensor) -> Tensor:
        """Turn `slots` (tokens,) into the rows that `write` fills, (tokens * n_kv_heads,). Once per step."""
        heads = torch.arange(self.num_heads, device=slots.device) * (self.num_blocks * self.block_size)
        return (slots[:, None] + heads).flatten()

    def write(self, layer: int, index: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys and values (tokens, n_kv_heads, head_dim) at the rows of `write_index`."""
        self._keys[layer].index_copy_(0, index, keys.reshape(-1, self.head_dim))
        self._values[layer].index_copy_(0, index, values.reshape(-1, self.head_dim))

    def gather_index(self, block_tables: Tensor) -> Tensor:
        """Turn `block_tables` (sequences, blocks) into the rows that `gather` reads. Once per step."""
        heads = torch.arange(self.num_heads, device=block_tables.device) * self.num_blocks
        return (heads[:, None] + block_tables.flatten()).flatten()

    def gather(self, layer: int, index: Tensor, num_sequences: int) -> tuple[Tensor, Tensor]:
        """Return keys and values of some sequences, each (sequences, n_kv_heads, tokens, head_dim).

        Copies; valid for as long as the caller likes. Tokens are in position order, padded to whole blocks.
        """
        block_row = self.block_size * self.head_dim
        shape = (self.num_heads, num_sequences, -1, self.head_dim)
        keys = self._keys[layer].view(-1, block_row).index_select(0, index).view(shape)
        values = self._values[layer].view(-1, block_row).index_select(0, index).view(shape)
        return keys.transpose(0, 1), values.transpose(0, 1)

    def copy_blocks(self, sources: list[int], targets: list[int]) -> None:
        """Copy whole blocks in every layer; for a sequence that forks in the middle of a block."""
        device = self._keys[0].device
        index_from = self.gather_index(torch.tensor(sources, device=device)[:, None])
        index_to = self.gather_index(torch.tensor(targets, device=device)[:, None])
        block_row = self.block_size * self.head_dim
        for tensor in (*self._keys, *self._values):
            rows = tensor.view(-1, block_row)
            rows.index_copy_(0, index_to, rows.index_select(0, index_from))

    @property
    def num_bytes(self) -> int:
        """Bytes of address space; on the CPU only the written part is resident."""
        return sum(t.numel() * t.element_size() for t in (*self._keys, *self._values))


def _zeros(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Like torch.zeros, which on the CPU would write every page: NumPy leaves fresh pages to the system."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    num_bytes = math.prod(shape) * torch.finfo(dtype).bits // 8
    return torch.from_numpy(np.zeros(num_bytes, dtype=np.uint8)).view(dtype).view(shape)
