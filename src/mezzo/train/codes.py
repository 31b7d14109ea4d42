"""The language that encoder and decoder meet in: the embedding that a cell of known content has.

A cell is a sum of codes: one for each character in it by its place, one for the kind of thing that covers it, one for
its colour, one for the number of things whose middle it has. The decoder learns to read sums of codes from the
generator's own truth, without a picture; the encoder learns to write them, without a decoder. Both lessons are short,
and neither waits for the other (docs/decisions/0017).

Codes start as what the decoder knows: the first character as its token's embedding, later ones as the same turned by
a fixed random rotation, kinds and colours as the embeddings of their names.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mezzo.train.data.colours import NAMES
from mezzo.train.data.picture import KINDS
from mezzo.train.targets import CELL_SLOTS, CHARACTERS, MAX_CENTRES, NUM_CLASSES


class CellCodes(nn.Module):
    """Codes of all that a cell can hold. They stay as they start: what reads and what writes them learn them apart.

    Shapes, float32: chars (CELL_SLOTS, NUM_CLASSES, dim);
    kinds (len(KINDS), dim), colours (len(NAMES), dim), centres (MAX_CENTRES + 1, dim).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.chars = nn.Parameter(torch.zeros(CELL_SLOTS, NUM_CLASSES, dim))
        self.kinds = nn.Parameter(torch.zeros(len(KINDS), dim))
        self.colours = nn.Parameter(torch.zeros(len(NAMES), dim))
        self.centres = nn.Parameter(torch.zeros(MAX_CENTRES + 1, dim))

    @torch.no_grad()
    def start_from(self, embeddings: Tensor, tokenizer: Tokenizer, seed: int) -> None:
        """Set all codes from the decoder's token embeddings, (vocab_size, dim)."""
        generator = torch.Generator().manual_seed(seed)
        dim = embeddings.shape[1]

        def named(text: str) -> Tensor:
            return embeddings[tokenizer.encode(text, add_special_tokens=False).ids[0]].float()

        letters = torch.stack([named(char) for char in CHARACTERS])
        for slot in range(CELL_SLOTS):
            turn = (
                torch.eye(dim)
                if slot == 0
                else torch.linalg.qr(torch.randn(dim, dim, generator=generator))[0]
            )
            self.chars[slot, 1:] = letters @ turn
        self.chars[0, 0] = 0.5 * named("\n")
        self.kinds[1:] = torch.stack([named(f" {kind}") for kind in KINDS[1:]])
        self.colours.copy_(torch.stack([named(f" {name}") for name in NAMES]))
        scale = embeddings.square().mean().sqrt()
        self.centres[1:] = torch.randn(MAX_CENTRES, dim, generator=generator) * scale

    def forward(self, targets: dict[str, Tensor]) -> Tensor:
        """targets as in `Targets`, of any number of pictures -> (cells, dim) float32."""
        chars, areas = targets["cell_chars"], targets["cell_areas"]
        cells = sum(self.chars[slot][chars[:, slot]] for slot in range(CELL_SLOTS))
        covered = (areas > 0).unsqueeze(-1)
        return (
            cells
            + self.kinds[areas // 16] * covered
            + self.colours[areas % 16] * covered
            + self.centres[targets["cell_centres"]]
        )
