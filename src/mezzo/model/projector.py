"""From patches of the vision encoder to embeddings of the decoder: norm, patch merger, two matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mezzo.model.activation import ACTIVATIONS
from mezzo.model.decoder import RMSNorm
from mezzo.model.linear import Linear
from mezzo.model.vision_config import VisionConfig


class Projector(nn.Module):
    """w_out(act(w_in(x))), with what the configuration has of a norm and a patch merger before it.

    Source: the LLaVA projector (arXiv 2304.08485); the patch merger is that of Mistral Small 3.1.
    """

    def __init__(self, config: VisionConfig, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        width, edge = config.hidden_size, config.spatial_merge_size
        self.edge = edge
        self.dtype = dtype
        self.norm = RMSNorm(width, config.projector_norm_eps, dtype) if config.projector_norm else None
        self.merger = Linear(width * edge**2, width, dtype) if config.patch_merger else None
        self.w_in = Linear(width, dim, dtype, bias=config.projector_bias)
        self.w_out = Linear(dim, dim, dtype, bias=config.projector_bias)
        self.act = ACTIVATIONS[config.projector_act]

    def forward(self, hidden: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
        """Project the patches of some images.

        Shapes: hidden (patches, hidden_size) float32, image after image, each (rows, columns) of `shapes` in row-major
        order. Returns for each image (rows * columns / edge ** 2, dim) float32, merged patches in row-major order.
        """
        hidden = hidden.to(self.dtype) if self.norm is None else self.norm(hidden)
        if self.merger is not None:
            sizes = [rows * columns for rows, columns in shapes]
            parts = zip(hidden.split(sizes), shapes, strict=True)
            hidden = self.merger(torch.cat([squares(part, shape, self.edge) for part, shape in parts]))
        embeddings = self.w_out(self.act(self.w_in(hidden))).float()
        return list(embeddings.split([rows * columns // self.edge**2 for rows, columns in shapes]))


def squares(patches: Tensor, shape: tuple[int, int], edge: int) -> Tensor:
    """Lay the patches of each square of `edge` by `edge` into one row, number by number.

    Shapes: patches (rows * columns, width), row-major; the result (squares, width * edge ** 2). With edge 2, squares
    of the patches a b over c d become a0 b0 c0 d0 a1 b1 c1 d1 ..., the order that the merger's columns have.
    """
    rows, columns = shape
    grid = patches.view(rows // edge, edge, columns // edge, edge, -1)
    return grid.permute(0, 2, 4, 1, 3).reshape(-1, patches.shape[1] * edge**2)
