"""How a safetensors file is written one tensor at a time, so that no second copy of the model is in memory.

Layout: the header's length in 8 bytes (little-endian), the header in JSON (name -> dtype, shape, offsets into
the data), the data without holes. Source: the format's description in the safetensors project.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOAT32_BYTES = 4
ALIGNMENT = 8


def write_float32(
    path: Path,
    shapes: dict[str, tuple[int, ...]],
    tensors: Iterable[NDArray[np.float32]],
    advance: Callable[[int], None],
) -> None:
    """Write tensors of these names and shapes, given in the same order and read only when their turn comes.

    Raises: ValueError if a tensor has another shape or dtype than announced, or the counts differ.
    """
    with path.open("wb") as file:
        file.write(_header(shapes))
        for (name, shape), tensor in zip(shapes.items(), tensors, strict=True):
            if tensor.shape != shape or tensor.dtype != np.float32:
                raise ValueError(f"{name}: announced float32 {shape}, given {tensor.dtype} {tensor.shape}")
            # Through the buffer, not ndarray.tofile: that one loses the system's error number on a full disk.
            file.write(np.ascontiguousarray(tensor, dtype="<f4").data.cast("B"))
            advance(tensor.nbytes)


def float32_bytes(shapes: Iterable[tuple[int, ...]]) -> int:
    """Return the size of the data of tensors of these shapes."""
    return sum(prod(shape) * FLOAT32_BYTES for shape in shapes)


def _header(shapes: dict[str, tuple[int, ...]]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + prod(shape) * FLOAT32_BYTES
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
