"""The language that encoder and decoder meet in: the embedding that a cell of known content has.

A cell is a sum of codes: one for each character in it by its place, one for the kind of thing that covers it, one for
its colour, one for the number of things whose middle it has. The decoder learns to read sums of codes from the
generator's own truth, without a picture; the encoder learns to write them, without a decoder. Both lessons are short,
and neither waits for the other (docs/decisions/0017).

A character's code is what the decoder knows, its token's embedding, louder the further left it stands, and beside that
the same embedding turned by a rotation of its place's own: the first says which characters there are and about in
which order, the second which of them stands where. Kinds and colours are the embeddings of their names.

A place is a patch of the cell and one of the patch's slots, so that what each patch writes is the same whatever stands
in its neighbours, and the projector can be little more than a sum.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mezzo.train.data.colours import NAMES
from mezzo.train.data.picture import KINDS
from mezzo.train.targets import CHARACTERS, MAX_CENTRES, NUM_CLASSES, PATCH_SLOTS

_FADING = 0.8  # loudness of a place over that of the one to the left of it
_TURNED = 0.6  # loudness of the turned part
_EMPTY = 0.2  # of a patch without characters, which says "new line": a cell of nothing would be noise, once normalised


class CellCodes(nn.Module):
    """Codes of all that a cell can hold. They stay as they start: what reads and what writes them learn them apart.

    Shapes, float32: chars (places, NUM_CLASSES, dim), as many places as `Targets.cell_chars` has for cells of `merge`
    by `merge` patches; kinds (len(KINDS), dim), colours (len(NAMES), dim), centres (MAX_CENTRES + 1, dim).
    """

    def __init__(self, dim: int, merge: int) -> None:
        super().__init__()
        self.merge = merge
        self.chars = nn.Parameter(torch.zeros(merge * merge * PATCH_SLOTS, NUM_CLASSES, dim))
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
        for place in range(len(self.chars)):
            turn, _ = torch.linalg.qr(torch.randn(dim, dim, generator=generator))
            from_left = place % (self.merge * PATCH_SLOTS)
            self.chars[place, 1:] = letters * _FADING**from_left + letters @ turn * _TURNED
        self.chars[::PATCH_SLOTS, 0] = _EMPTY * named("\n")
        self.kinds[1:] = torch.stack([named(f" {kind}") for kind in KINDS[1:]])
        self.colours.copy_(torch.stack([named(f" {name}") for name in NAMES]))
        scale = embeddings.square().mean().sqrt()
        self.centres[1:] = torch.randn(MAX_CENTRES, dim, generator=generator) * scale

    def forward(self, targets: dict[str, Tensor]) -> Tensor:
        """targets as in `Targets`, of any number of pictures -> (cells, dim) float32."""
        chars, areas = targets["cell_chars"], targets["cell_areas"]
        places = torch.arange(chars.shape[1], device=chars.device)
        cells = self.chars[places, chars].sum(1)
        covered = (areas > 0).unsqueeze(-1)
        return (
            cells
            + self.kinds[areas // 16] * covered
            + self.colours[areas % 16] * covered
            + self.centres[targets["cell_centres"]]
        )
