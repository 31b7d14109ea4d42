"""Attention of a ragged batch over the paged KV cache.

A step computes some tokens of many sequences. Sequences with the same number of new tokens and a similar length
stand together in a group, and each group is one call of PyTorch's scaled dot product attention: all sequences
that decode are one group or a few, a chunk of a prompt is a group of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzo.model.config import ModelConfig
from mezzo.model.kv_cache import KVCache
from mezzo.model.linear import pad_rows

_KEYS_AT_A_TIME = 512


@dataclass(frozen=True)
class SequenceSpan:
    """The tokens of one sequence that a step computes, `num_new` of them after `num_context` in the cache.

    decodes   the tokens are answers and guesses of what follows: each is to be computed as if it were alone
    """

    block_table: list[int]
    num_context: int
    num_new: int
    decodes: bool = False

    def slots(self, block_size: int) -> list[int]:
        """Return the places of the new tokens in the cache, block * block_size + offset."""
        positions = range(self.num_context, self.num_context + self.num_new)
        return [self.block_table[p // block_size] * block_size + p % block_size for p in positions]

    def in_buckets(self, block_size: int) -> list[SequenceSpan]:
        """Divide the span where its tokens read numbers of keys that round differently."""
        spans: list[SequenceSpan] = []
        start, end = self.num_context, self.num_context + self.num_new
        while start < end:
            num_blocks = start // block_size + 1
            bucket_end = _blocks_that_do_not_tell(num_blocks, block_size) * block_size
            if num_blocks * block_size > _KEYS_AT_A_TIME:
                bucket_end = end
            last = min(end, bucket_end)
            spans.append(SequenceSpan(self.block_table, start, last - start, self.decodes))
            start = last
        return spans


@dataclass(frozen=True)
class SpanGroup:
    """Spans with the same number of new tokens, whose rows follow each other in the batch.

    start          first row of the group in the batch; it has num_sequences * num_new rows
    gather_index   rows of the KV cache to read, as `KVCache.gather_index` makes them; None when the new tokens are
                   all there is (a whole prompt in one chunk): then nothing needs to be read back
    mask           additive, (sequences, 1, rows, tokens), its rows being num_new for each query head of a key head,
                   and those that `pad_rows` adds; None when causal masking of a square is enough
    """

    start: int
    num_sequences: int
    num_new: int
    gather_index: Tensor | None
    mask: Tensor | None


@dataclass(frozen=True)
class AttentionPlan:
    """Where a step's keys and values go, and what each of its tokens may see. Made once, used by every layer."""

    write_index: Tensor
    groups: list[SpanGroup]


def length_bucket(span: SequenceSpan, block_size: int) -> int:
    """Return the power of two of blocks, as its exponent, that the span's table is padded to in a group."""
    num_blocks = -(-(span.num_context + span.num_new) // block_size)
    return (num_blocks - 1).bit_length()


def plan_attention(
    spans: list[SequenceSpan], cache: KVCache, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> AttentionPlan:
    """Make the plan for `spans`, whose rows stand in the batch in this order.

    Neighbours that have one new token each and the same length bucket share a group, so padding at most doubles
    what is read. A span of several tokens is a group of its own: its cost is in its rows, not in the call.
    """
    slots = [slot for span in spans for slot in span.slots(cache.block_size)]
    # A draft is divided where its tokens would read numbers of keys that round differently.
    spans = [
        part for span in spans for part in (span.in_buckets(cache.block_size) if span.decodes else [span])
    ]
    groups: list[SpanGroup] = []
    start = first = 0
    while first < len(spans):
        last = first + 1
        if spans[first].num_new == 1:
            bucket = length_bucket(spans[first], cache.block_size)
            while (
                last < len(spans)
                and spans[last].num_new == 1
                and length_bucket(spans[last], cache.block_size) == bucket
            ):
                last += 1
        groups.append(_plan_group(spans[first:last], start, cache, config, dtype, device))
        start += (last - first) * spans[first].num_new
        first = last
    return AttentionPlan(cache.write_index(torch.tensor(slots, device=device)), groups)


def _plan_group(
    spans: list[SequenceSpan],
    start: int,
    cache: KVCache,
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
) -> SpanGroup:
    num_new = spans[0].num_new
    window = config.sliding_window
    lengths = [span.num_context + span.num_new for span in spans]
    if len(spans) == 1 and spans[0].num_context == 0 and (window is None or num_new <= window):
        return SpanGroup(start, 1, num_new, gather_index=None, mask=None)

    num_blocks = -(-max(lengths) // cache.block_size)
    if (num_new == 1 or spans[0].decodes) and dtype is torch.float32 and device.type == "cpu":
        num_blocks = _blocks_that_do_not_tell(num_blocks, cache.block_size)
    # Short tables are padded with block 0: its numbers are finite and the mask hides them.
    tables = [(span.block_table + [0] * num_blocks)[:num_blocks] for span in spans]
    keys = torch.arange(num_blocks * cache.block_size, device=device)
    last_new = torch.tensor(lengths, device=device)[:, None, None, None] - 1
    queries = last_new - torch.arange(num_new - 1, -1, -1, device=device)[None, None, :, None]
    visible = keys <= queries
    if window is not None:
        visible &= keys > queries - window
    mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, float("-inf"))
    mask = pad_rows(mask.repeat(1, 1, config.n_heads // config.n_kv_heads, 1))
    return SpanGroup(
        start, len(spans), num_new, cache.gather_index(torch.tensor(tables, device=device)), mask
    )


def _blocks_that_do_not_tell(num_blocks: int, block_size: int) -> int:
    """Round up so that a sequence is read with a number of keys that tells nothing of its group.

    In float32 the CPU's matrix library splits a sum over keys by their number, and the sums round differently. Up to
    512 keys that is the whole bucket; beyond, PyTorch's kernel works through 512 at a time, and only the last of
    them must be full. Measured: tests/consistency/test_batch_invariance.py.
    """
    in_bucket = 1 << (num_blocks - 1).bit_length()
    at_a_time = -(-_KEYS_AT_A_TIME // block_size)
    return min(in_bucket, -(-num_blocks // at_a_time) * at_a_time)


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, plan: AttentionPlan, cache: KVCache, layer: int
) -> Tensor:
    """Store the step's keys and values, then attend.

    Shapes: queries (tokens, n_heads, head_dim); keys, values (tokens, n_kv_heads, head_dim); result
    (tokens, n_heads * head_dim). Scores are scaled by head_dim ** -0.5.
    """
    cache.write(layer, plan.write_index, keys, values)
    outputs = []
    for group in plan.groups:
        rows = slice(group.start, group.start + group.num_sequences * group.num_new)
        if group.gather_index is None:
            outputs.append(_attend_whole(queries[rows], keys[rows], values[rows]))
        else:
            group_keys, group_values = cache.gather(layer, group.gather_index, group.num_sequences)
            outputs.append(_attend_cached(queries[rows], group_keys, group_values, group))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _attend_whole(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend causally within one chunk that has nothing before it."""
    q, k, v = (x.transpose(0, 1)[None] for x in (queries, keys, values))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out[0].transpose(0, 1).flatten(1)


def _attend_cached(queries: Tensor, keys: Tensor, values: Tensor, group: SpanGroup) -> Tensor:
    """Attend to gathered keys; the query heads of one key head ride along as further rows.

    With num_new = 1 and 3 query heads per key head, the score matrix of a key head has 3 rows, and its keys are
    read once instead of three times.
    """
    num_sequences, num_new = group.num_sequences, group.num_new
    n_kv_heads, head_dim = keys.shape[1], keys.shape[3]
    q = queries.view(num_sequences, num_new, n_kv_heads, -1, head_dim).permute(0, 2, 3, 1, 4).flatten(2, 3)
    num_rows = q.shape[2]
    out = F.scaled_dot_product_attention(pad_rows(q), keys, values, attn_mask=group.mask)[:, :, :num_rows]
    out = out.reshape(num_sequences, n_kv_heads, -1, num_new, head_dim).permute(0, 3, 1, 2, 4)
    return out.reshape(num_sequences * num_new, -1)
