"""Attention of ragged batches over the paged cache, against a masked softmax in float64, one query at a time."""

from __future__ import annotations

import math

import pytest
import torch

from mezzo.model.attention import SequenceSpan, attend, length_bucket, plan_attention
from mezzo.model.config import ModelConfig
from mezzo.model.kv_cache import KVCache
from tests.tiny import CPU

BLOCK = 4


def make_config(n_heads: int, n_kv_heads: int, window: int | None) -> ModelConfig:
    return ModelConfig(
        dim=8, n_layers=1, head_dim=8, hidden_dim=8, n_heads=n_heads, n_kv_heads=n_kv_heads, vocab_size=8,
        sliding_window=window,
    )  # fmt: skip


def naive(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, window: int | None) -> torch.Tensor:
    """One query (heads, head_dim) at the end of keys and values (tokens, kv_heads, head_dim); float64."""
    if window is not None:
        keys, values = keys[-window:], values[-window:]
    group = query.shape[0] // keys.shape[1]
    heads = []
    for head, q in enumerate(query.double()):
        k, v = keys[:, head // group].double(), values[:, head // group].double()
        heads.append((k @ q / math.sqrt(q.shape[0])).softmax(0) @ v)
    return torch.cat(heads)


class Batch:
    """Sequences with their whole keys and values, fed to the cache step by step as the engine does."""

    def __init__(self, config: ModelConfig, num_sequences: int) -> None:
        self.config = config
        self.cache = KVCache(config, num_blocks=64, block_size=BLOCK, dtype=torch.float32, device=CPU)
        self.generator = torch.Generator().manual_seed(3)
        blocks = torch.randperm(64, generator=self.generator).tolist()
        self.tables = [blocks[i * 10 : i * 10 + 10] for i in range(num_sequences)]
        self.keys = [torch.zeros(0, config.n_kv_heads, 8) for _ in range(num_sequences)]
        self.values = [torch.zeros(0, config.n_kv_heads, 8) for _ in range(num_sequences)]

    def normal(self, num_tokens: int, heads: int) -> torch.Tensor:
        return torch.randn(num_tokens, heads, 8, generator=self.generator)

    def step(self, lengths: dict[int, int]) -> None:
        """Compute `lengths` new tokens of each sequence in one batch, and compare every row."""
        config = self.config
        spans = [SequenceSpan(self.tables[i], len(self.keys[i]), n) for i, n in lengths.items()]
        plan = plan_attention(spans, self.cache, config, torch.float32, CPU)
        num_tokens = sum(lengths.values())
        queries = self.normal(num_tokens, config.n_heads)
        keys, values = self.normal(num_tokens, config.n_kv_heads), self.normal(num_tokens, config.n_kv_heads)
        out = attend(queries, keys, values, plan, self.cache, 0)
        assert out.shape == (num_tokens, config.n_heads * 8)
        row = 0
        for i, num_new in lengths.items():
            self.keys[i] = torch.cat([self.keys[i], keys[row : row + num_new]])
            self.values[i] = torch.cat([self.values[i], values[row : row + num_new]])
            for position in range(len(self.keys[i]) - num_new, len(self.keys[i])):
                expected = naive(
                    queries[row],
                    self.keys[i][: position + 1],
                    self.values[i][: position + 1],
                    config.sliding_window,
                )
                # float32 sums of at most 40 products against float64
                torch.testing.assert_close(out[row].double(), expected, rtol=0, atol=2e-6)
                row += 1


@pytest.mark.parametrize("window", [None, 1, 3, 4, 9, 100])
@pytest.mark.parametrize("heads", [(1, 1), (4, 4), (6, 2), (3, 1)])
def test_ragged_batches(heads: tuple[int, int], window: int | None) -> None:
    batch = Batch(make_config(*heads, window), num_sequences=6)
    batch.step({0: 1})
    batch.step({1: 17})
    batch.step({2: 3, 3: 4, 4: 5})
    batch.step({0: 1, 2: 1, 3: 1, 4: 1, 1: 1})
    batch.step({0: 1, 4: 1, 5: 9, 1: 7})
    batch.step({5: 1, 3: 1, 2: 1, 1: 1, 0: 6})
    for _ in range(5):
        batch.step(dict.fromkeys([0, 2, 3, 4, 5, 1], 1))


def test_neighbours_of_one_bucket_share_a_call_and_chunks_stand_alone() -> None:
    config = make_config(2, 1, None)
    cache = KVCache(config, num_blocks=64, block_size=BLOCK, dtype=torch.float32, device=CPU)
    lengths = [(0, 1), (3, 1), (4, 1), (7, 1), (8, 1), (15, 1), (2, 6), (0, 6)]
    spans = [SequenceSpan(list(range(10)), context, new) for context, new in lengths]
    groups = plan_attention(spans, cache, config, torch.float32, CPU).groups
    assert [(g.start, g.num_sequences, g.num_new) for g in groups] == [
        (0, 2, 1), (2, 2, 1), (4, 2, 1), (6, 1, 6), (12, 1, 6),
    ]  # fmt: skip
    assert [g.gather_index is None for g in groups] == [False, False, False, False, True]


@pytest.mark.parametrize(("num_tokens", "bucket"), [(1, 0), (4, 0), (5, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_buckets_are_powers_of_two_of_blocks(num_tokens: int, bucket: int) -> None:
    assert length_bucket(SequenceSpan([], num_tokens - 1, 1), BLOCK) == bucket


def test_numbers_in_hidden_positions_do_not_matter() -> None:
    """A short table is padded with block 0, and the last block of a sequence holds old numbers of others."""
    config = make_config(2, 1, None)
    queries, new = torch.randn(2, 2, 8), torch.randn(2, 1, 8)
    spans = [SequenceSpan([3], 2, 1), SequenceSpan([5, 6], 6, 1)]
    results = []
    for filling in (0.0, 1e4):
        cache = KVCache(config, num_blocks=8, block_size=BLOCK, dtype=torch.float32, device=CPU)
        slots = torch.arange(8 * BLOCK)
        cache.write(0, cache.write_index(slots), *[torch.full((32, 1, 8), filling)] * 2)
        known = torch.tensor([12, 13, *range(20, 26)])
        cache.write(0, cache.write_index(known), *[torch.arange(8.0)[:, None, None].expand(8, 1, 8)] * 2)
        plan = plan_attention(spans, cache, config, torch.float32, CPU)
        results.append(attend(queries, new, new, plan, cache, 0))
    assert torch.equal(results[0], results[1])
