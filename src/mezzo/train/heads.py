"""The encoder's first lesson: linear heads that name what is in each patch and in each cell. Not shipped."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzo.train.data.colours import NAMES
from mezzo.train.data.picture import KINDS
from mezzo.train.targets import MAX_CENTRES, NUM_CLASSES, PATCH_SLOTS

_EMPTY_WEIGHT = 0.25  # most slots are empty, and the network would learn that first and long


class ReadingHeads(nn.Module):
    """Characters and areas from the encoder's last layer (patches) and from the projector's output (cells)."""

    def __init__(self, hidden_size: int, dim: int, merge: int) -> None:
        super().__init__()
        self.patch_chars = nn.Linear(hidden_size, PATCH_SLOTS * NUM_CLASSES)
        self.cell_chars = nn.Linear(dim, merge * merge * PATCH_SLOTS * NUM_CLASSES)
        self.patch_areas = nn.Linear(hidden_size, len(KINDS) + len(NAMES))
        self.cell_areas = nn.Linear(dim, len(KINDS) + len(NAMES))
        self.cell_centres = nn.Linear(dim, MAX_CENTRES + 1)
        weight = torch.full((NUM_CLASSES,), 1.0)
        weight[0] = _EMPTY_WEIGHT
        self.char_weight: Tensor
        self.register_buffer("char_weight", weight, persistent=False)

    def forward(
        self, patches: Tensor, cells: Tensor, targets: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and what share of characters, kinds and colours is named right, over non-empty slots.

        Shapes: patches (patches, hidden_size); cells (cells, dim) float32, of size 1 or so; targets as in `Targets`,
        pictures concatenated.
        """
        patches = F.rms_norm(patches, patches.shape[-1:])
        patch_loss, _ = self._chars(self.patch_chars(patches), targets["patch_chars"])
        cell_loss, char_share = self._chars(self.cell_chars(cells), targets["cell_chars"])
        patch_areas, _, _ = _areas(self.patch_areas(patches), targets["patch_areas"])
        cell_areas, kind_share, colour_share = _areas(self.cell_areas(cells), targets["cell_areas"])
        centres = F.cross_entropy(self.cell_centres(cells), targets["cell_centres"])
        loss = patch_loss + cell_loss + 0.5 * (patch_areas + cell_areas + centres)
        return loss, {"chars": char_share, "kinds": kind_share, "colours": colour_share}

    def _chars(self, logits: Tensor, classes: Tensor) -> tuple[Tensor, float]:
        flat, wanted = logits.view(-1, NUM_CLASSES), classes.reshape(-1)
        loss = F.cross_entropy(flat, wanted, weight=self.char_weight)
        with torch.no_grad():
            there = wanted > 0
            share = (flat.argmax(-1) == wanted)[there].float().mean().item() if there.any() else 1.0
        return loss, share


def _areas(logits: Tensor, areas: Tensor) -> tuple[Tensor, float, float]:
    kinds, colours = logits[:, : len(KINDS)], logits[:, len(KINDS) :]
    kind, colour, there = areas // 16, areas % 16, areas > 0
    loss = F.cross_entropy(kinds, kind)
    if not there.any():
        return loss, 1.0, 1.0
    loss = loss + F.cross_entropy(colours[there], colour[there])
    with torch.no_grad():
        kind_share = (kinds.argmax(-1) == kind)[there].float().mean().item()
        colour_share = (colours.argmax(-1) == colour)[there].float().mean().item()
    return loss, kind_share, colour_share
