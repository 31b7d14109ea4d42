"""Matrix products whose rows do not depend on each other's presence.

Other number formats of the weights will be further classes with this one's `forward`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The CPU's matrix libraries take other paths for one, two and three rows, and for a remainder of them, and their sums
# round differently: in float32 everywhere, in bfloat16 for a single row, and for any where it is emulated. In float32
# Intel's library must besides be told to round alike (docs/decisions/0015). Checked by tests/consistency.
_ROWS_AT_ONCE = 4
_EXACT_LOGITS = 64


def pad_rows(x: Tensor) -> Tensor:
    """Return x (..., rows, columns) with zero rows added where the number of rows would change the others' results."""
    missing = -x.shape[-2] % _ROWS_AT_ONCE
    if not missing or x.device.type != "cpu":
        return x
    return F.pad(x, (0, 0, 0, missing))


class Linear(nn.Module):
    """`x @ weight.T`, plus a bias where there is one.

    On the CPU a row's result is the same bits however many rows are computed with it: their number is padded to a
    multiple of four.
    """

    def __init__(
        self, in_features: int, out_features: int, dtype: torch.dtype, *, bias: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, dtype=dtype)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x (rows, in_features) -> (rows, out_features), in x's dtype."""
        return F.linear(pad_rows(x), self.weight, self.bias)[: x.shape[0]]


class Head(Linear):
    """The product that gives logits, in float32 where it matters.

    Logits of 25 stand 0.125 apart in bfloat16, and the best two tokens often stand closer: rounding them changes
    answers. On a GPU the product of half-precision numbers is accumulated and returned in float32. The CPU has no such
    product, and float32 weights would be twice the bytes to read: there the largest logits, which decide, are computed
    again from the same weights in float32, and the others keep their rounding. Measured: benchmarks/number_formats.py.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (rows, in_features) float32 -> logits (rows, out_features) float32."""
        dtype = self.weight.dtype
        if dtype is torch.float32:
            return super().forward(x)
        if x.device.type == "cuda":
            return torch.mm(x.to(dtype), self.weight.t(), out_dtype=torch.float32)
        logits = super().forward(x.to(dtype)).float()
        largest = logits.topk(min(_EXACT_LOGITS, logits.shape[-1]), dim=-1).indices
        rows = self.weight[largest].float()  # (rows, largest, in_features)
        return logits.scatter_(-1, largest, (rows * x[:, None]).sum(-1))
