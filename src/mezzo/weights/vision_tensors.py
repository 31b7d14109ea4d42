"""The tensors of a vision half, and how they join those of a language model, one at a time.

Names are those of transformers without its `model.` in front: `vision_tower.*`, `multi_modal_projector.*`, and for
an updated matrix of the decoder the pair `language_model.layers.N.self_attn.q_proj.lora_a` and `.lora_b`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mezzo.kit.files import sha256_of_file
from mezzo.weights.errors import WeightsError
from mezzo.weights.llama_layout import MappedTensor

_VISION = ("vision_tower.", "multi_modal_projector.")
_A, _B = ".lora_a", ".lora_b"


class ConvertedTensor(Protocol):
    """A tensor of the checkpoint that is being written."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self) -> NDArray[np.float32]:
        """Compute the values anew: who reads a tensor is the only one to hold it."""


@dataclass(frozen=True)
class _Renamed:
    """A tensor of the language half under its name in a multimodal checkpoint."""

    name: str
    source: MappedTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    def read(self) -> NDArray[np.float32]:
        return self.source.read()


@dataclass(frozen=True)
class UpdatedTensor(_Renamed):
    """W + B A. Shapes: W (rows, columns), A (rank, columns), B (rows, rank); the sum in float32."""

    a: ConvertedTensor
    b: ConvertedTensor

    def read(self) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self.b.read() @ self.a.read()
        values += self.source.read()
        return values


@dataclass(frozen=True)
class _Stored:
    """A float16 tensor of the vision half's file."""

    name: str
    shape: tuple[int, ...]
    _file: Any

    def read(self) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self._file.get_tensor(self.name).astype(np.float32)
        return values


def read_vision_tensors(path: Path, sha256: str) -> dict[str, ConvertedTensor]:
    """Open the file, which has to stay in place, and return its tensors by name; none is read yet.

    Raises: WeightsError if it is missing, is not the file with this SHA-256, or holds other than float16 tensors.
    """
    try:
        if sha256_of_file(path) != sha256:
            raise WeightsError(
                f"{path} is not the file that mezzo was released with: its SHA-256 differs.",
                hint="Install mezzo again.",
            )
        file: Any = safe_open(path, framework="numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path} cannot be read.", hint="Install mezzo again.", detail=str(error)
        ) from error
    for name, stored in slices.items():
        if stored.get_dtype() != "F16":
            raise WeightsError(f"Tensor {name} of {path.name} is {stored.get_dtype()}, not F16.")
    return {name: _Stored(name, tuple(stored.get_shape()), file) for name, stored in slices.items()}


def join_tensors(
    language: Sequence[MappedTensor], vision: dict[str, ConvertedTensor]
) -> list[ConvertedTensor]:
    """Return the tensors of the multimodal checkpoint: the language half's, updated, and then the vision half's.

    Their names are those that every version of transformers saves (`HF_MULTIMODAL_SAVED` in `mezzo.model.layout`).
    Raises: WeightsError for a tensor that belongs to neither half, or an update that fits no matrix of the decoder.
    """
    left = dict(vision)
    joined: list[ConvertedTensor] = []
    for tensor in language:
        name = f"language_model.{tensor.name}"
        stem = f"language_model.{tensor.name.removeprefix('model.').removesuffix('.weight')}"
        a, b = left.pop(stem + _A, None), left.pop(stem + _B, None)
        if a is None and b is None:
            joined.append(_Renamed(name, tensor))
        elif isinstance(a, _Stored) and isinstance(b, _Stored):
            _check_update(stem, tensor.shape, a.shape, b.shape)
            joined.append(UpdatedTensor(name, tensor, a, b))
        else:
            raise WeightsError(f"The update of {stem} lacks {_A if a is None else _B}.")
    if unknown := sorted(name for name in left if not name.startswith(_VISION)):
        raise WeightsError(
            f"The vision half has tensors without a place in the model: {', '.join(unknown[:5])}."
        )
    return joined + list(left.values())


def _check_update(stem: str, whole: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...]) -> None:
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or (b[0], a[1]) != whole:
        raise WeightsError(f"The update of {stem} has shapes {b} and {a}, which make no {whole}.")
