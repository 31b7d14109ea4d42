"""The cache's layout: what is written at a slot is read at its place, for every head and layer."""

from __future__ import annotations

import pytest
import torch

from mezzo.model.config import ModelConfig
from mezzo.model.kv_cache import KVCache
from tests.tiny import CPU, HF_CONFIG

CONFIG = ModelConfig.from_hf(HF_CONFIG)  # 2 layers, 2 key heads of 8 numbers


def make_cache(dtype: torch.dtype = torch.float32) -> KVCache:
    return KVCache(CONFIG, num_blocks=5, block_size=4, dtype=dtype, device=CPU)


def numbered(num_tokens: int, sign: int = 1) -> torch.Tensor:
    """(tokens, heads, head_dim) whose numbers say where they come from: 100 * token + 10 * head, in every column."""
    tokens = torch.arange(num_tokens)[:, None, None] * 100
    heads = torch.arange(2)[None, :, None] * 10
    return (sign * (tokens + heads + 1)).expand(num_tokens, 2, 8).to(torch.float32)


def test_begins_as_zeros() -> None:
    keys, values = make_cache().gather(0, make_cache().gather_index(torch.tensor([[0, 1, 2, 3, 4]])), 1)
    assert keys.shape == values.shape == (1, 2, 20, 8)
    assert not keys.any()
    assert not values.any()


def test_tokens_come_back_in_order_of_the_table() -> None:
    """Six tokens of a sequence that owns blocks 3 and 1: slots 12 to 15, then 4 and 5."""
    cache = make_cache()
    index = cache.write_index(torch.tensor([12, 13, 14, 15, 4, 5]))
    cache.write(1, index, numbered(6), numbered(6, sign=-1))
    keys, values = cache.gather(1, cache.gather_index(torch.tensor([[3, 1]])), 1)
    assert torch.equal(keys[0, :, :6], numbered(6).transpose(0, 1))
    assert torch.equal(values[0, :, :6], numbered(6, sign=-1).transpose(0, 1))
    assert not keys[0, :, 6:].any()
    other_layer, _ = cache.gather(0, cache.gather_index(torch.tensor([[3, 1]])), 1)
    assert not other_layer.any()


def test_several_sequences_are_read_at_once() -> None:
    cache = make_cache()
    cache.write(0, cache.write_index(torch.arange(20)), numbered(20), numbered(20))
    keys, _ = cache.gather(0, cache.gather_index(torch.tensor([[4, 0], [2, 2]])), 2)
    in_order = numbered(20).transpose(0, 1)
    assert torch.equal(keys[0], torch.cat([in_order[:, 16:20], in_order[:, 0:4]], dim=1))
    assert torch.equal(keys[1], torch.cat([in_order[:, 8:12]] * 2, dim=1))


def test_what_was_read_does_not_change_with_the_cache() -> None:
    cache = make_cache()
    keys, _ = cache.gather(0, cache.gather_index(torch.tensor([[0]])), 1)
    cache.write(0, cache.write_index(torch.tensor([0])), numbered(1), numbered(1))
    assert not keys.any()


def test_blocks_are_copied_in_every_layer_for_every_head() -> None:
    cache = make_cache()
    for layer in (0, 1):
        cache.write(layer, cache.write_index(torch.arange(20)), numbered(20) + layer, -numbered(20) - layer)
    cache.copy_blocks([0, 4], [2, 1])
    in_order = numbered(20).transpose(0, 1)
    for layer in (0, 1):
        keys, values = cache.gather(layer, cache.gather_index(torch.tensor([[0, 1, 2, 3, 4]])), 1)
        expected = torch.cat([in_order[:, a : a + 4] for a in (0, 16, 0, 12, 16)], dim=1) + layer
        assert torch.equal(keys[0], expected)
        assert torch.equal(values[0], -expected)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2), (torch.float16, 2)])
def test_bytes_are_those_of_all_layers(dtype: torch.dtype, size: int) -> None:
    assert make_cache(dtype).num_bytes == 5 * 4 * CONFIG.kv_values_per_token * size
