"""The Mistral-family decoder, readable top to bottom: embedding, layers of attention and feed-forward, head.

One forward pass computes any tokens of any sequences: a whole prompt, a chunk of one, one token for each of many
streams, or all of these at once. Tokens stand in one flat dimension; who they belong to is in the `AttentionPlan`.

Number formats: matrices are in the model's dtype and so is what is multiplied with them; the residual stream, the
norms, the rotary embedding and the logits are float32. Measured in docs/decisions/0006-number-formats.md.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzo.model.attention import AttentionPlan, SequenceSpan, attend, plan_attention
from mezzo.model.config import ModelConfig
from mezzo.model.kv_cache import KVCache
from mezzo.model.linear import Head, Linear
from mezzo.model.rope import RotaryEmbedding, rotate


class Embedding(nn.Module):
    """The vector of each token. Without nn.Embedding's initialisation, which costs seconds before the first load."""

    def __init__(self, vocab_size: int, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, dim, dtype=dtype))

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids (tokens,) -> (tokens, dim) float32, the residual stream's beginning."""
        return F.embedding(token_ids, self.weight).float()


class RMSNorm(nn.Module):
    """Root mean square normalisation (arXiv 1910.07467) of the residual stream, for the matrix that follows it."""

    def __init__(self, dim: int, eps: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.eps = eps
        self.dtype = dtype
        self.weight = nn.Parameter(torch.empty(dim, dtype=torch.float32))

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (tokens, dim) float32 -> (tokens, dim) in `dtype`."""
        return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps).to(self.dtype)


class Attention(nn.Module):
    """Grouped-query attention (arXiv 2305.13245) with rotary positions over the paged KV cache."""

    def __init__(self, config: ModelConfig, layer: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = layer
        self.n_heads = config.n_heads
        self.n_kv_heads = config.n_kv_heads
        self.head_dim = config.head_dim
        # One matrix product for queries, keys and values: the rows of wq, wk and wv, one after the other.
        self.wqkv = Linear(config.dim, (config.n_heads + 2 * config.n_kv_heads) * config.head_dim, dtype)
        self.wo = Linear(config.n_heads * config.head_dim, config.dim, dtype)

    def forward(self, hidden: Tensor, rope: RopeInputs, plan: AttentionPlan, cache: KVCache) -> Tensor:
        """hidden (tokens, dim) -> (tokens, dim). Writes the tokens' keys and values into `cache`."""
        heads = self.wqkv(hidden).view(hidden.shape[0], -1, self.head_dim)
        rotated = rotate(heads[:, : self.n_heads + self.n_kv_heads], rope.cos, rope.sin)
        queries, keys = rotated[:, : self.n_heads], rotated[:, self.n_heads :]
        values = heads[:, self.n_heads + self.n_kv_heads :]
        if rope.query_scale is not None:
            queries = queries * rope.query_scale
        return self.wo(attend(queries, keys, values, plan, cache, self.layer))  # type: ignore[no-any-return]


class RopeInputs:
    """What the rotary embedding needs for a step's positions, computed once and shared by all layers."""

    def __init__(self, rotary: RotaryEmbedding, positions: Tensor, dtype: torch.dtype) -> None:
        self.cos, self.sin = rotary(positions)
        scale = rotary.query_scale(positions)
        self.query_scale = None if scale is None else scale.to(dtype)


class FeedForward(nn.Module):
    """A gated linear unit (arXiv 2002.05202): w2(act(w1 x) * w3 x), with w1 and w3 in one matrix."""

    def __init__(
        self, dim: int, hidden_dim: int, dtype: torch.dtype, act: Callable[[Tensor], Tensor] = F.silu
    ) -> None:
        super().__init__()
        self.act = act
        self.w13 = Linear(dim, 2 * hidden_dim, dtype)
        self.w2 = Linear(hidden_dim, dim, dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        gate, up = self.w13(hidden).chunk(2, dim=-1)
        return self.w2(self.act(gate) * up)  # type: ignore[no-any-return]


class Block(nn.Module):
    """One decoder layer: attention, then feed-forward, each on a normalised copy of the residual stream."""

    def __init__(self, config: ModelConfig, layer: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps, dtype)
        self.attention = Attention(config, layer, dtype)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps, dtype)
        self.feed_forward = FeedForward(config.dim, config.hidden_dim, dtype)

    def forward(self, hidden: Tensor, rope: RopeInputs, plan: AttentionPlan, cache: KVCache) -> Tensor:
        """hidden (tokens, dim) float32 -> the same."""
        hidden = hidden + self.attention(self.attention_norm(hidden), rope, plan, cache)
        return hidden + self.feed_forward(self.ffn_norm(hidden))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """A Mistral-family language model.

    `dtype` is that of the matrices and of the KV cache. Parameters are created uninitialised, on torch's current
    default device; `mezzo.model.checkpoint` fills them.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = config
        self.dtype = dtype
        self.output = Head(config.dim, config.vocab_size, dtype)
        self.tok_embeddings = Embedding(config.vocab_size, config.dim, dtype)
        if config.tied_embeddings:
            self.tok_embeddings.weight = self.output.weight
        self.layers = nn.ModuleList(Block(config, layer, dtype) for layer in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps, torch.float32)
        self.rotary = RotaryEmbedding(config.rope, config.head_dim)

    @property
    def device(self) -> torch.device:
        return self.output.weight.device

    def plan(self, spans: list[SequenceSpan], cache: KVCache) -> AttentionPlan:
        """Make the plan for `spans`, whose rows stand in the batch in this order."""
        return plan_attention(spans, cache, self.config, self.dtype, self.device)

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        plan: AttentionPlan,
        cache: KVCache,
        logits_rows: Tensor,
        image_rows: Tensor | None = None,
        image_embeddings: Tensor | None = None,
    ) -> Tensor:
        """Compute a step.

        Shapes: token_ids, positions (tokens,) int64; logits_rows (rows,) int64, the tokens whose next token is
        wanted; image_rows (image tokens,) int64, the tokens whose embeddings are those of images, and
        image_embeddings (image tokens, dim) float32 in their order, both or neither. Returns logits (rows, vocab_size)
        float32. Writes keys and values of all tokens into `cache`.
        """
        hidden = self.tok_embeddings(token_ids)
        if image_rows is not None and image_embeddings is not None:
            hidden = hidden.index_copy(0, image_rows, image_embeddings)
        rope = RopeInputs(self.rotary, positions, self.dtype)
        for layer in self.layers:
            hidden = layer(hidden, rope, plan, cache)
        return self.output(self.norm(hidden[logits_rows]))  # type: ignore[no-any-return]
