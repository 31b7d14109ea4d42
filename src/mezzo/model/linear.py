"""Matrix products whose rows do not depend on each other's presence.

Other number formats of the weights will be further classes with this one's `forward`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# In float32 the CPU's matrix library takes other paths for one, two and three rows, and for a remainder of them, and
# their sums round differently. In bfloat16 it does not. Measured: tests/consistency/test_batch_invariance.py.
_ROWS_AT_ONCE = 4


class Linear(nn.Linear):
    """`x @ weight.T`, without bias.

    A row's result is the same bits however many rows are computed with it: in float32 on the CPU the number of
    rows is padded to a multiple of four, which costs nothing measurable; in bfloat16 nothing is needed.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (rows, in_features) -> (rows, out_features), in x's dtype."""
        rows = x.shape[0]
        missing = -rows % _ROWS_AT_ONCE
        if not missing or x.dtype is not torch.float32 or x.device.type != "cpu":
            return F.linear(x, self.weight)
        return F.linear(F.pad(x, (0, 0, 0, missing)), self.weight)[:rows]
