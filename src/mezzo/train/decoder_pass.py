"""The decoder as training runs it: whole conversations side by side, nothing cached, gradients through everything.

The engine's pass (`Decoder.forward`) computes ragged chunks over a paged cache. The layers are the same modules.
Checked against each other by tests/train/test_decoder_pass.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mezzo.model.decoder import Attention, Block, Decoder, RopeInputs
from mezzo.model.rope import rotate


def hidden_states(decoder: Decoder, embeddings: Tensor, *, saves_memory: bool = False) -> Tensor:
    """Run all layers over sequences that all begin at position 0.

    saves_memory: keep only what goes into each layer, and compute the layer again for its gradient.

    Shapes: embeddings (sequences, length, dim) float32, shorter sequences padded at the end with anything: attention
    is causal, so nothing reads the padding. Returns the same shape, normalised, for `decoder.output`.
    """
    num_sequences, length, dim = embeddings.shape
    hidden = embeddings.reshape(num_sequences * length, dim)
    positions = torch.arange(length, device=embeddings.device).repeat(num_sequences)
    rope = RopeInputs(decoder.rotary, positions, decoder.dtype)
    for layer in _layers(decoder):
        if saves_memory and torch.is_grad_enabled():
            hidden = checkpoint(_layer, layer, hidden, rope, num_sequences, use_reentrant=False)
        else:
            hidden = _layer(layer, hidden, rope, num_sequences)
    return decoder.norm(hidden).view(num_sequences, length, dim)  # type: ignore[no-any-return]


def plain_logits(decoder: Decoder, hidden: Tensor) -> Tensor:
    """hidden (rows, dim) -> logits (rows, vocab_size) float32.

    For gradients; the engine's head computes the largest ones twice where it rounds.
    """
    weight = decoder.output.weight
    return F.linear(hidden.to(weight.dtype), weight).float()


def _layers(decoder: Decoder) -> Iterator[Block]:
    for layer in decoder.layers:
        assert isinstance(layer, Block)
        yield layer


def _layer(layer: Block, hidden: Tensor, rope: RopeInputs, num_sequences: int) -> Tensor:
    hidden = hidden + _attention(layer.attention, layer.attention_norm(hidden), rope, num_sequences)
    return hidden + layer.feed_forward(layer.ffn_norm(hidden))  # type: ignore[no-any-return]


def _attention(attention: Attention, hidden: Tensor, rope: RopeInputs, num_sequences: int) -> Tensor:
    heads = attention.wqkv(hidden).view(hidden.shape[0], -1, attention.head_dim)
    num_rotated = attention.n_heads + attention.n_kv_heads
    rotated = rotate(heads[:, :num_rotated], rope.cos, rope.sin)
    queries, keys = rotated[:, : attention.n_heads], rotated[:, attention.n_heads :]
    if rope.query_scale is not None:
        queries = queries * rope.query_scale
    q, k, v = (
        x.unflatten(0, (num_sequences, -1)).transpose(1, 2) for x in (queries, keys, heads[:, num_rotated:])
    )
    repeats = attention.n_heads // attention.n_kv_heads
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return attention.wo(out.transpose(1, 2).flatten(2).flatten(0, 1))  # type: ignore[no-any-return]
