"""The decoder of `mezzo.model.decoder` in eight and four bits, on kernels of our own.

The same network, layer for layer, with the same interface. What differs is where the numbers are: matrices are
quantized, and each product rounds its inputs to eight bits in groups of 32; the KV cache is in eight bits. The residual
stream, norms, rotary embedding, softmax and logits are float32. The loop over the layers is in kernels/csrc/layers.c.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mezzo.model.attention import SequenceSpan
from mezzo.model.config import ModelConfig
from mezzo.model.kernels.library import Kernels, Layer, Layers, Matrix, Norm, StepRows
from mezzo.model.quantized_kv_cache import QuantizedKVCache
from mezzo.model.rope import RotaryEmbedding


@dataclass(frozen=True)
class QuantizedPlan:
    """Where a step's keys and values go, and which rows belong to whom: as `StepRows` has it."""

    slots: Tensor
    spans: Tensor
    tables: Tensor


class QuantizedDecoder:
    """A Mistral-family language model on the CPU's kernels; see `mezzo.model.decoder.Decoder` for what is computed.

    embeddings, output   one matrix where they are tied
    """

    def __init__(
        self,
        config: ModelConfig,
        kernels: Kernels,
        *,
        embeddings: Matrix,
        layers: list[Layer],
        norm: Norm,
        output: Matrix,
    ) -> None:
        self.config = config
        self.kernels = kernels
        self.embeddings = embeddings
        self.layers = Layers(layers)
        self.norm = norm
        self.output = output
        self.rotary = RotaryEmbedding(config.rope, config.head_dim)
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        """That of hidden states and of image embeddings."""

    def plan(self, spans: list[SequenceSpan], cache: QuantizedKVCache) -> QuantizedPlan:
        """Make the plan for `spans`, whose rows stand in the batch in this order."""
        size = cache.block_size
        slots: list[int] = []
        tables: list[int] = []
        numbers: list[tuple[int, int, int, int]] = []
        for span in spans:
            numbers.append((len(slots), span.num_new, span.num_context, len(tables)))
            end = span.num_context + span.num_new
            slots += span.slots(size)
            tables += span.block_table[: -(-end // size)]
        return QuantizedPlan(
            torch.tensor(slots),
            torch.tensor(numbers, dtype=torch.int32),
            torch.tensor(tables, dtype=torch.int32),
        )

    def __call__(
        self,
        token_ids: Tensor,
        positions: Tensor,
        plan: QuantizedPlan,
        cache: QuantizedKVCache,
        logits_rows: Tensor,
        image_rows: Tensor | None = None,
        image_embeddings: Tensor | None = None,
    ) -> Tensor:
        """Compute a step; arguments and result as those of `Decoder.forward`."""
        hidden = self.kernels.embed(token_ids, self.embeddings)
        if image_rows is not None and image_embeddings is not None:
            hidden.index_copy_(0, image_rows, image_embeddings)
        cos, sin = (angles.flatten(1) for angles in self.rotary(positions))
        scale = self.rotary.query_scale(positions)
        rows = StepRows(
            cos, sin, None if scale is None else scale.flatten(), plan.slots, plan.spans, plan.tables
        )
        self.kernels.run_layers(hidden, self.layers, cache.heads, rows, cache.data)
        logits = self.kernels.linear(hidden[logits_rows], self.output, self.norm)
        return logits[:, : self.config.vocab_size]
