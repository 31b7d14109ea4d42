"""Weights that are stored in FP8: which scale belongs to which, and how they become numbers of the model's dtype.

Why they are not kept in FP8: docs/decisions/0012-fp8-checkpoints.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mezzo.model.errors import UnsupportedCheckpoint
from mezzo.model.layout import Layout
from mezzo.model.quantization import Fp8Weights
from mezzo.model.tensor_file import StoredTensor

FP8 = torch.float8_e4m3fn
# Dequantising needs up to fourteen bytes of working memory for each.
FP8_PART_BYTES = 1 << 19
_SCALE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def scaled_weight(name: str, layout: Layout) -> str | None:
    """Return the name of the weight that a tensor of this name would be a scale of, None if it would be of none."""
    for suffix in (layout.weight_scale, layout.activation_scale):
        if name.endswith(f".{suffix}"):
            return name.removesuffix(suffix) + "weight"
    return None


def scale_of(
    weight: StoredTensor, tensors: Mapping[str, StoredTensor], layout: Layout, quantization: Fp8Weights
) -> StoredTensor:
    """Find the scale of an FP8 weight, which may be in any file of the checkpoint.

    Raises: UnsupportedCheckpoint naming the scale if it is missing or of another shape or dtype than it should be.
    """
    name = weight.name.removesuffix("weight") + layout.weight_scale
    scale = tensors.get(name)
    if scale is None:
        raise UnsupportedCheckpoint(f"{weight.name} is stored in FP8 and lacks its scale {name}")
    if scale.dtype not in _SCALE_DTYPES:
        raise UnsupportedCheckpoint(f"{name} has dtype {scale.dtype}, which is not supported")
    shapes = _scale_shapes(weight, quantization)
    if scale.shape not in shapes:
        raise UnsupportedCheckpoint(
            f"{name} has shape {scale.shape}, but the configuration makes it {' or '.join(map(str, shapes))}"
        )
    return scale


def _scale_shapes(weight: StoredTensor, quantization: Fp8Weights) -> list[tuple[int, ...]]:
    if quantization.block_size is None:
        return [(), (1,), (1, 1)]
    if len(weight.shape) != 2:
        raise UnsupportedCheckpoint(
            f"{weight.name} has shape {weight.shape}; only matrices have scales of blocks"
        )
    return [
        tuple(-(-size // block) for size, block in zip(weight.shape, quantization.block_size, strict=True))
    ]


class Dequantizer:
    """Turns FP8 numbers into those of another dtype, part by part.

    A byte has 256 values, so they are looked up in a table of all: the conversion that PyTorch has for the CPU takes
    four times as long. The result is that of float32 arithmetic, rounded once.
    """

    def __init__(self) -> None:
        self._codes = torch.empty(0, dtype=torch.int32)
        self._values = torch.arange(256, dtype=torch.uint8).view(FP8).float()

    def dequantize(
        self,
        part: Tensor,
        scale: Tensor,
        *,
        first_row: int,
        block_size: tuple[int, int] | None,
        dtype: torch.dtype,
    ) -> Tensor:
        """Multiply rows of a weight, from `first_row` on, with their scales.

        Shapes: part (rows, columns) FP8 on the CPU; scale float32, one number, or (row blocks, column blocks) of the
        whole weight where there is a `block_size`. Returns (rows, columns) in `dtype`.
        """
        if len(self._codes) < part.numel():
            self._codes = torch.empty(part.numel(), dtype=torch.int32)
        codes = self._codes[: part.numel()].copy_(part.view(torch.uint8).flatten())
        if block_size is None:
            table = (self._values * scale.reshape(())).to(dtype)
            return table.index_select(0, codes).view(part.shape)
        rows = torch.arange(first_row, first_row + part.shape[0]) // block_size[0]
        columns = torch.arange(part.shape[1]) // block_size[1]
        scales = scale[rows][:, columns]
        return self._values.index_select(0, codes).view(part.shape).mul_(scales).to(dtype)


def checked_scale(name: str, scale: Tensor) -> Tensor:
    """Return a scale in float32. Raises: UnsupportedCheckpoint naming it for numbers that no weight can have."""
    scale = scale.float()
    if not bool((scale.isfinite() & (scale >= 0)).all()):
        raise UnsupportedCheckpoint(f"{name} holds numbers that are not finite, or below zero")
    return scale
