"""Low-rank updates of a frozen decoder (LoRA, arXiv 2106.09685): what a team can train, ship and merge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzo.model.config import ModelConfig
from mezzo.model.decoder import Decoder
from mezzo.model.layout import Layout
from mezzo.model.linear import Linear

TARGETS = ("attention.wqkv", "attention.wo", "feed_forward.w13", "feed_forward.w2")


class LoraLinear(nn.Module):
    """A frozen matrix with a trained update beside it: (W + B A) x, the scale being part of B.

    Shapes: a (rank, in_features), b (out_features, rank), float32. B starts at zero, so the update does too.
    """

    def __init__(self, base: Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.enabled = True
        out_features, in_features = base.weight.shape
        device = base.weight.device
        self.a = nn.Parameter(torch.randn(rank, in_features, device=device) / in_features**0.5)
        self.b = nn.Parameter(torch.zeros(out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """x (rows, in_features) -> (rows, out_features), in the base's dtype."""
        if not self.enabled:
            return self.base(x)  # type: ignore[no-any-return]
        update = F.linear(F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype))
        return F.linear(x, self.base.weight, self.base.bias) + update


def add_lora(decoder: Decoder, rank: int) -> dict[str, nn.Parameter]:
    """Freeze the decoder and put an update beside each matrix of its layers.

    Returns the updates' parameters by name: `layers.N.attention.wqkv.a` and so on.
    """
    decoder.requires_grad_(False)
    parameters: dict[str, nn.Parameter] = {}
    for number, layer in enumerate(decoder.layers):
        for name in TARGETS:
            parent_name, _, child = name.partition(".")
            parent = getattr(layer, parent_name)
            lora = LoraLinear(getattr(parent, child), rank)
            setattr(parent, child, lora)
            parameters |= {f"layers.{number}.{name}.a": lora.a, f"layers.{number}.{name}.b": lora.b}
    return parameters


def stored_updates(
    updates: Mapping[str, Tensor], config: ModelConfig, layout: Layout
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A (rank, in) and B (out, rank) for each matrix of a checkpoint, by its stored name without `.weight`.

    updates   as `add_lora` names them
    Matrices that mezzo computes as one (queries, keys and values; gate and up) share one A; each gets its rows of B.
    """
    b_of = {
        f"decoder.{name.removesuffix('.b')}.weight": b.detach()
        for name, b in updates.items()
        if name.endswith(".b")
    }
    pairs = {}
    for stored, place in layout.places(config, b_of).items():
        a = updates[place.parameter.removeprefix("decoder.").removesuffix(".weight") + ".a"]
        pairs[stored.removesuffix(".weight")] = a.detach(), place.rows_of(b_of[place.parameter])
    return pairs


@contextmanager
def without_lora(decoder: Decoder) -> Iterator[None]:
    """Have the decoder compute what it did before it was trained."""
    updates = [module for module in decoder.modules() if isinstance(module, LoraLinear)]
    for update in updates:
        update.enabled = False
    try:
        yield
    finally:
        for update in updates:
            update.enabled = True
