"""Writing weights as safetensors files of a bounded size, part by part, with an index beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from mezzo.kit.files import write_json
from mezzo.model.errors import UnsupportedCheckpoint
from mezzo.model.layout import Place, paired_rows
from mezzo.model.tensor_file import DTYPE_NAMES, PART_BYTES

_ALIGNMENT = 8


@dataclass(frozen=True)
class OutgoingTensor:
    """A tensor as it will be in a file: `place` of `parameter`, in `dtype`."""

    name: str
    parameter: Tensor
    place: Place
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.place.rows_of(self.parameter).shape)

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def parts(self) -> Iterator[Tensor]:
        """Yield the rows in the file's order, converted, each part contiguous and on the CPU.

        Raises: UnsupportedCheckpoint if a number does not fit into the dtype.
        """
        rows, num_heads = self.place.rows_of(self.parameter), self.place.num_interleaved_heads
        source = paired_rows(rows, num_heads) if num_heads else rows
        step = max(1, PART_BYTES * source.shape[0] // max(1, self.num_bytes))
        for part in torch.split(source, step):
            converted = part.to("cpu", self.dtype)
            if self.dtype is torch.float16 and not bool(converted.isfinite().all()):
                raise UnsupportedCheckpoint(f"{self.name} has numbers that do not fit into float16")
            yield converted.contiguous()


def plan_shards(tensors: list[OutgoingTensor], max_bytes: int) -> list[list[OutgoingTensor]]:
    """Split tensors, in this order, into shards of at most `max_bytes`; a larger tensor is a shard of its own."""
    shards: list[list[OutgoingTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.num_bytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.num_bytes
    return shards


def write_shards(
    folder: Path, stem: str, shards: list[list[OutgoingTensor]], advance: Callable[[int], None]
) -> None:
    """Write `stem`.safetensors, or `stem`-00001-of-00002.safetensors and so on and their index.

    `advance` is called with the bytes of each part written.
    """
    names = (
        [f"{stem}.safetensors"]
        if len(shards) == 1
        else [f"{stem}-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    )
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / name, shard, advance)
    if len(shards) > 1:
        weight_map = {t.name: name for name, shard in zip(names, shards, strict=True) for t in shard}
        total = sum(tensor.num_bytes for shard in shards for tensor in shard)
        write_json(
            folder / f"{stem}.safetensors.index.json",
            {"metadata": {"total_size": total}, "weight_map": weight_map},
        )


def _write_file(path: Path, tensors: list[OutgoingTensor], advance: Callable[[int], None]) -> None:
    with path.open("wb") as file:
        file.write(_header(tensors))
        for tensor in tensors:
            for part in tensor.parts():
                file.write(part.view(torch.uint8).numpy().data)
                advance(part.nbytes)


def _header(tensors: list[OutgoingTensor]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.num_bytes
        entries[tensor.name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
