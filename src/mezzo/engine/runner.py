"""Turns a `SchedulerOutput` into tensors, runs the forward pass, returns logits."""

from __future__ import annotations

import torch
from torch import Tensor

from mezzo.engine.scheduler import ScheduledSequence
from mezzo.model.attention import SequenceSpan, length_bucket, plan_attention
from mezzo.model.kv_cache import KVCache
from mezzo.model.network import Network


class Runner:
    """A network and its KV cache on one device."""

    def __init__(self, network: Network, cache: KVCache) -> None:
        self.network = network
        self.decoder = network.decoder
        self.vision = network.vision
        self.cache = cache

    @torch.inference_mode()
    def forward(self, scheduled: list[ScheduledSequence]) -> tuple[Tensor, list[ScheduledSequence]]:
        """Compute the scheduled tokens.

        Returns logits (rows, vocab_size) float32 and, row by row, the sequences whose next token they predict:
        those that the step catches up with.
        """
        device = self.decoder.device
        spans = [_span(item) for item in scheduled]
        order = sorted(range(len(spans)), key=lambda i: self._group_key(spans[i]))
        scheduled, spans = [scheduled[i] for i in order], [spans[i] for i in order]

        token_ids: list[int] = []
        positions: list[int] = []
        rows: list[int] = []
        complete: list[ScheduledSequence] = []
        for item, span in zip(scheduled, spans, strict=True):
            end = span.num_context + span.num_new
            token_ids += item.sequence.tokens_between(span.num_context, end)
            positions += range(span.num_context, end)
            if item.completes:
                rows.append(len(token_ids) - 1)
                complete.append(item)

        plan = plan_attention(spans, self.cache, self.decoder.config, self.decoder.dtype, device)
        logits = self.decoder(
            torch.tensor(token_ids, device=device),
            torch.tensor(positions, device=device),
            plan,
            self.cache,
            torch.tensor(rows, dtype=torch.int64, device=device),
        )
        return logits, complete

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Copy blocks of the cache, (source, target)."""
        if pairs:
            with torch.inference_mode():
                self.cache.copy_blocks([source for source, _ in pairs], [target for _, target in pairs])

    def _group_key(self, span: SequenceSpan) -> tuple[bool, int]:
        """Single tokens first, by length, so that those which can share a group are neighbours."""
        return (span.num_new > 1, length_bucket(span, self.cache.block_size))


def _span(item: ScheduledSequence) -> SequenceSpan:
    return SequenceSpan(item.sequence.block_table, item.sequence.num_computed, item.num_new)
