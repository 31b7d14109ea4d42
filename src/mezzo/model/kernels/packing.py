"""Matrices in eight or four bits, in the layout that the kernels read (csrc/linear.c)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

GROUP = 32
TILE = 16
_GROUP_BYTES = {4: 2 * 2 * TILE + GROUP * TILE // 2, 8: 2 * TILE + GROUP * TILE}
# How far a weight may be from its four bits to count as made of them: conversions round in the last bits of float32.
_EXACT = 1e-6
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix (num_outputs, num_inputs) in groups of 32 neighbours of a row.

    data   (tiles of 16 outputs, groups, bytes) uint8; the last tile is filled up with zero rows
    """

    data: Tensor
    num_outputs: int

    @property
    def num_inputs(self) -> int:
        return self.data.shape[1] * GROUP

    @property
    def num_padded_outputs(self) -> int:
        return self.data.shape[0] * TILE

    @property
    def num_bits(self) -> int:
        return 4 if self.data.shape[2] == _GROUP_BYTES[4] else 8


def pack(weight: Tensor, num_bits: int) -> QuantizedMatrix:
    """Round weight (outputs, inputs), of any float dtype, to `num_bits` per number: 4 or 8.

    Four bits: 16 steps between the smallest and the largest number of a group, both float16. Eight bits: 255 steps
    around zero up to the largest. Source of the groups: the formats Q4_1 and Q8_0 of GGUF files, whose numbers come
    back exactly. Raises: ValueError for inputs that are not whole groups, for numbers beyond float16.
    """
    if weight.shape[1] % GROUP:
        raise ValueError(f"{weight.shape[1]} inputs are not in groups of {GROUP}")
    to_bytes = _four_bits if num_bits == 4 else _eight_bits
    parts = []
    for part in torch.split(weight, _ROWS_AT_ONCE):
        rows = F.pad(part.float(), (0, 0, 0, -part.shape[0] % TILE))
        parts.append(to_bytes(torch.unflatten(rows, 1, (-1, GROUP))))
    return QuantizedMatrix(torch.cat(parts), weight.shape[0])


def pack_exactly(weight: Tensor) -> QuantizedMatrix:
    """Pack into eight bits, or into four where the weights are made of four bits: nothing is lost by that."""
    return pack(weight, 4 if _is_made_of_four_bits(weight) else 8)


def interleave_gates(gates_and_ups: Tensor) -> Tensor:
    """Put each 16 rows of the second half after those of the first that they are multiplied with."""
    gate, up = torch.unflatten(gates_and_ups, 0, (2, -1, TILE))
    return torch.stack((gate, up), dim=1).flatten(0, 2)


def unpack(matrix: QuantizedMatrix) -> Tensor:
    """Return the numbers that the kernels multiply with, (outputs, inputs) float32. For tests and measurements."""
    half = matrix.data[:, :, : 2 * TILE].contiguous().view(torch.float16).float()  # (tiles, groups, lanes)
    scale = half.transpose(1, 2)[..., None]
    if matrix.num_bits == 8:
        q = torch.unflatten(matrix.data[:, :, 2 * TILE :], 2, (GROUP // 4, TILE, 4))
        numbers = q.permute(0, 3, 1, 2, 4).flatten(3).float() - 128
        return (scale * numbers).flatten(2).flatten(0, 1)[: matrix.num_outputs]
    minimum = matrix.data[:, :, 2 * TILE : 4 * TILE].contiguous().view(torch.float16).float()
    both = (
        torch.unflatten(matrix.data[:, :, 4 * TILE :], 2, (GROUP // 8, TILE, 4))
        .permute(0, 3, 1, 2, 4)
        .flatten(3)
    )
    numbers = torch.cat((both & 15, both >> 4), dim=-1).float()
    weights = scale * numbers + minimum.transpose(1, 2)[..., None]
    return weights.flatten(2).flatten(0, 1)[: matrix.num_outputs]


def _is_made_of_four_bits(weight: Tensor) -> bool:
    for part in torch.split(weight, _ROWS_AT_ONCE):
        groups = torch.unflatten(part.float(), 1, (-1, GROUP))
        scale, minimum, q = _round_to_four(groups)
        difference = (scale[..., None] * q + minimum[..., None] - groups).abs()
        if (difference > _EXACT * groups.abs().amax(-1, keepdim=True)).any():
            return False
    return True


def _round_to_four(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return scale, minimum (rows, groups) of float16's precision and q (rows, groups, 32) in 0..15, all float32."""
    minimum = _checked_half(groups.amin(-1))
    scale = _checked_half((groups.amax(-1) - minimum) / 15)
    inverse = torch.where(scale > 0, 1 / scale, 0)
    return scale, minimum, ((groups - minimum[..., None]) * inverse[..., None]).round().clamp(0, 15)


def _four_bits(groups: Tensor) -> Tensor:
    scale, minimum, q = _round_to_four(groups)
    low, high = torch.unflatten(q.to(torch.uint8), 2, (2, 4, 4)).unbind(2)  # (rows, groups, 4, 4) each
    both = torch.unflatten(low | (high << 4), 0, (-1, TILE)).permute(0, 2, 3, 1, 4).flatten(2)
    return torch.cat((_lanes(scale), _lanes(minimum), both), dim=2)


def _eight_bits(groups: Tensor) -> Tensor:
    scale = _checked_half(groups.abs().amax(-1) / 127)
    inverse = torch.where(scale > 0, 1 / scale, 0)
    q = (groups * inverse[..., None]).round().clamp(-128, 127)
    shifted = torch.unflatten(torch.unflatten((q + 128).to(torch.uint8), 2, (GROUP // 4, 4)), 0, (-1, TILE))
    return torch.cat((_lanes(scale), shifted.permute(0, 2, 3, 1, 4).flatten(2)), dim=2)


def _lanes(numbers: Tensor) -> Tensor:
    """(rows, groups) float32 -> (tiles, groups, bytes of 16 float16 numbers)."""
    return torch.unflatten(numbers.half(), 0, (-1, TILE)).transpose(1, 2).contiguous().view(torch.uint8)


def _checked_half(numbers: Tensor) -> Tensor:
    rounded = numbers.half().float()
    if not rounded.isfinite().all():
        raise ValueError("a weight is not finite, or beyond float16")
    return rounded
