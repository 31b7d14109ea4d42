"""What a GGUF file holds: its metadata, typed, and its tensors, dequantised one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from mezzo.weights.errors import WeightsError

SUPPORTED_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")


@dataclass(frozen=True)
class GgufTensor:
    """One tensor. `shape` has the slowest dimension first: (rows, columns) of the matrix."""

    name: str
    shape: tuple[int, ...]
    _raw: Any

    def read(self) -> NDArray[np.float32]:
        """Return the values in float32, exactly as the number format defines them."""
        values = gguf.dequantize(self._raw.data, self._raw.tensor_type)
        return np.ascontiguousarray(values, dtype=np.float32).reshape(self.shape)


class GgufFile:
    """A GGUF file of little-endian numbers in the supported tensor types.

    The file is mapped, not read: keep it in place while this object lives.
    """

    def __init__(self, path: Path) -> None:
        """Read the header. Raises: WeightsError if this is no such file."""
        self.path = path
        try:
            reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError, TypeError) as error:
            raise WeightsError(
                f"{path.name} is not a readable GGUF file.",
                hint="Download it again; it may be cut short.",
                detail=f"{type(error).__name__}: {error}",
            ) from error
        if reader.byte_order != "I":
            raise WeightsError(
                f"{path.name} is a big-endian GGUF file; only little-endian ones are supported."
            )
        self._fields = reader.fields
        self.tensors: Mapping[str, GgufTensor] = {raw.name: _tensor(raw) for raw in reader.tensors}

    def keys(self) -> list[str]:
        """List the names of the metadata."""
        return list(self._fields)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the metadata value, or `default` where the file does not have it."""
        field = self._fields.get(key)
        return default if field is None else field.contents()

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number. Raises: WeightsError if it is missing (without default) or not one."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.invalid(key, value)
        return value

    def decimal(self, key: str, default: float | None = None) -> float:
        """Return the shortest decimal that rounds to the stored float32: 9.99999974738e-06 is 1e-05.

        Raises: WeightsError if it is missing (without default) or not a finite number.
        """
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise self.invalid(key, value)
        return float(str(np.float32(value)))

    def strings(self, key: str) -> list[str]:
        """Return a list of strings. Raises: WeightsError if it is missing or something else."""
        value = self.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.invalid(key, value)
        return value

    def invalid(self, key: str, value: Any) -> WeightsError:
        """Make the error for metadata that is missing or does not make sense."""
        if value is None:
            return WeightsError(f"{self.path.name} lacks the metadata {key}.")
        return WeightsError(
            f"{self.path.name} has metadata {key} = {str(value)[:80]}, which is not supported."
        )


def _tensor(raw: Any) -> GgufTensor:
    if raw.tensor_type.name not in SUPPORTED_TYPES:
        raise WeightsError(
            f"Tensor {raw.name} is stored as {raw.tensor_type.name}; "
            f"supported are {', '.join(SUPPORTED_TYPES)}.",
            hint="Use a file of the same model in one of these formats.",
        )
    return GgufTensor(raw.name, tuple(reversed(raw.shape.tolist())), raw)
