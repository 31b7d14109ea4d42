"""The low-rank updates that are merged into a checkpoint's matrices, kept beside the sums.

A matrix that was made of four bits is none any more once an update is added to it: the sum has to be held in eight.
Who writes such a checkpoint can say what was added (`merged_lora.safetensors`), and then the matrix can be taken apart
again and computed as W x + B (A x), W in its four bits. The checkpoint is whole without this file.

The file has PEFT's pairs for stored matrices, `STEM.lora_A.weight` (rank, in) and `STEM.lora_B.weight` (out, rank),
float32, where `STEM.weight` is the name of the matrix in the checkpoint. The scale is part of B.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mezzo.model.config import ModelConfig
from mezzo.model.errors import UnsupportedCheckpoint
from mezzo.model.layout import Layout
from mezzo.model.lora_names import MERGED_LORA, STORED_A, STORED_B
from mezzo.model.tensor_file import PartReader, read_header


def merged_updates(
    folder: Path, config: ModelConfig, layout: Layout, shapes: dict[str, torch.Size]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A (rank, in) and B (out, rank) of parameters, by mezzo's names; empty without the file.

    shapes   of the network's parameters
    Matrices that mezzo computes as one are given one pair: their A's one after the other, once where they are equal.
    Raises: UnsupportedCheckpoint for a damaged file, and for a pair that is not whole or fits no matrix.
    """
    path = folder / MERGED_LORA
    if not path.exists():
        return {}
    reader = PartReader()
    stored = {tensor.name: reader.whole(tensor).float().clone() for tensor in read_header(path)}
    parts: dict[str, list[tuple[slice, Tensor, Tensor]]] = {}
    for name, place in layout.places(config, shapes).items():
        stem = name.removesuffix(".weight")
        a, b = stored.pop(stem + STORED_A, None), stored.pop(stem + STORED_B, None)
        if a is None and b is None:
            continue
        rows = place.rows_of(torch.empty(shapes[place.parameter], device="meta"))
        # Only the Hugging Face layout is written with updates: rows in another order would need B's in that order too.
        if a is None or b is None or not _fits(a, b, rows) or place.num_interleaved_heads:
            raise UnsupportedCheckpoint(f"{MERGED_LORA} has no update that fits {name}")
        parts.setdefault(place.parameter, []).append((slice(place.start, place.stop), a, b))
    if stored:
        raise UnsupportedCheckpoint(f"{MERGED_LORA} has {min(stored)}, which fits no matrix")
    return {parameter: _joined(shapes[parameter], of_rows) for parameter, of_rows in parts.items()}


def _fits(a: Tensor, b: Tensor, rows: Tensor) -> bool:
    if a.dim() != 2 or b.dim() != 2:
        return False
    return b.shape[1] == a.shape[0] and (b.shape[0], a.shape[1]) == rows.shape


def _joined(shape: torch.Size, parts: list[tuple[slice, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    different: list[Tensor] = []
    columns: list[tuple[slice, int, Tensor]] = []
    for rows, a, b in parts:
        same = next(
            (number for number, other in enumerate(different) if torch.equal(a, other)), len(different)
        )
        if same == len(different):
            different.append(a)
        columns.append((rows, sum(len(other) for other in different[:same]), b))
    whole = torch.zeros(shape[0], sum(len(a) for a in different))
    for rows, first, b in columns:
        whole[rows, first : first + b.shape[1]] = b
    return torch.cat(different), whole
