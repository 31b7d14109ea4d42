"""Reading safetensors files: headers that are checked before they are believed, numbers read part by part.

A mapped file's pages count as memory of the process for as long as it is mapped, and a loaded model would stand in
memory twice. So the pages of each part are given back as soon as it has been copied. Reading into a buffer instead
was measured too: half the speed, for one more trip of every byte through memory.
Layout: the header's length in 8 bytes (little-endian), the header in JSON (name -> dtype, shape, offsets into the
data), the data without holes. Source: the format's description in the safetensors project.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mezzo.model.errors import UnsupportedCheckpoint

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# The limit of the format's own library: a longer header is an attack on the reader's memory.
_MAX_HEADER_BYTES = 100_000_000
_MAX_DIMENSIONS = 32
PART_BYTES = 1 << 23


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, not read yet; `start` counts bytes from the file's beginning."""

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def read_header(path: Path) -> list[StoredTensor]:
    """Return the tensors of a file in the order of their data.

    Raises: UnsupportedCheckpoint naming the file, unless the header accounts for every byte of it exactly once.
    """
    try:
        return _read_header(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnsupportedCheckpoint(f"{path.name} is damaged: {error}") from error


def _read_header(path: Path) -> list[StoredTensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError(f"its header of {length} bytes does not fit")
        header = json.loads(file.read(length), object_pairs_hook=_without_repeats)
    header.pop("__metadata__", None)
    tensors = [_stored(path, name, entry, 8 + length) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.num_bytes))
    end = 8 + length
    for tensor in tensors:
        if tensor.start != end:
            raise ValueError(f"{tensor.name} does not begin where the tensor before it ends")
        end += tensor.num_bytes
    if end != size:
        raise ValueError(f"its header describes {end} bytes, the file has {size}")
    return tensors


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("its header names something twice")
    return made


def _stored(path: Path, name: str, entry: dict[str, Any], data_start: int) -> StoredTensor:
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{name} has the unknown dtype {entry['dtype']!r}")
    start, end = entry["data_offsets"]
    numbers = [*entry["shape"], start, end]
    if len(numbers) > _MAX_DIMENSIONS or any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
        raise ValueError(f"{name} has a shape or offsets that are no sizes")
    tensor = StoredTensor(path, name, DTYPES[entry["dtype"]], tuple(entry["shape"]), start=data_start + start)
    if end - start != tensor.num_bytes:
        raise ValueError(f"{name} has {end - start} bytes, its shape and dtype make it {tensor.num_bytes}")
    return tensor


class PartReader:
    """Reads tensors in parts of whole rows, and gives each part's memory back before it reads the next."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._mapping: mmap.mmap | None = None

    def parts(
        self, tensor: StoredTensor, *, rows_together: int = 1, part_bytes: int = PART_BYTES
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, rows) from the first row to the last. A part is valid until the next one is asked for.

        Shapes: parts (rows, ...) with the tensor's dtype and further dimensions, rows being a multiple of
        `rows_together`, which divides their number in all, and of about `part_bytes`; a tensor without dimensions
        comes as one row. Parts are not to be written to.
        Raises: UnsupportedCheckpoint if the file cannot be read.
        """
        num_rows, *columns = tensor.shape or (1,)
        row_bytes = prod(columns) * tensor.dtype.itemsize
        if not num_rows * row_bytes:
            return
        step = max(1, part_bytes // (row_bytes * rows_together)) * rows_together
        mapping = self._map(tensor.path)
        data = torch.frombuffer(mapping, dtype=torch.uint8)
        for first in range(0, num_rows, step):
            last = min(first + step, num_rows)
            start, end = tensor.start + first * row_bytes, tensor.start + last * row_bytes
            part = data[start:end]
            if start % tensor.dtype.itemsize:  # allowed, if not usual
                part = part.clone()
            yield first, part.view(tensor.dtype).view(last - first, *columns)
            _give_back(mapping, start, end)

    def whole(self, tensor: StoredTensor) -> Tensor:
        """Return a copy of a small tensor, in its shape. Raises: UnsupportedCheckpoint."""
        parts = [part.clone() for _, part in self.parts(tensor)]
        return torch.cat(parts).view(tensor.shape) if parts else torch.empty(tensor.shape, dtype=tensor.dtype)

    def _map(self, path: Path) -> mmap.mmap:
        """Map a file, one at a time: tensors come file after file."""
        if self._mapping is None or self._path != path:
            try:
                with path.open("rb") as file:
                    # A private copy, because PyTorch wants memory that could be written to; nothing is.
                    self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            except (OSError, ValueError) as error:
                raise UnsupportedCheckpoint(f"{path.name} cannot be read: {error}") from error
            self._path = path
        return self._mapping


def _give_back(mapping: mmap.mmap, start: int, end: int) -> None:
    """Let go of the pages of a part. Those at its edges may be shared: they are read again when they are needed."""
    if hasattr(mmap, "MADV_DONTNEED"):
        aligned = start - start % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_DONTNEED, aligned, end - aligned)
