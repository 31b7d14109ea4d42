"""What the tensor-by-tensor writer writes is what the safetensors library reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from mezzo.weights.safetensors_file import float32_bytes, write_float32

SHAPES: dict[str, tuple[int, ...]] = {"b": (3, 5), "a": (7,), "ünicode": (2, 2)}


def random_tensors() -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.standard_normal(shape, dtype=np.float32) for shape in SHAPES.values()]


def test_reader_gives_back_names_shapes_and_values(tmp_path: Path) -> None:
    tensors, written = random_tensors(), []
    write_float32(tmp_path / "x.safetensors", SHAPES, iter(tensors), written.append)
    with safe_open(tmp_path / "x.safetensors", framework="numpy") as file:
        assert set(file.keys()) == set(SHAPES)
        assert file.metadata() == {"format": "pt"}
        for name, tensor in zip(SHAPES, tensors, strict=True):
            assert file.get_tensor(name).dtype == np.float32
            assert np.array_equal(file.get_tensor(name), tensor)
    assert sum(written) == float32_bytes(SHAPES.values()) == 4 * (15 + 7 + 4)


def test_data_starts_aligned(tmp_path: Path) -> None:
    write_float32(tmp_path / "x.safetensors", SHAPES, iter(random_tensors()), lambda num_bytes: None)
    header_length = int.from_bytes((tmp_path / "x.safetensors").read_bytes()[:8], "little")
    assert header_length % 8 == 0


def test_another_shape_dtype_or_count_than_announced_is_refused(tmp_path: Path) -> None:
    path, tensors = tmp_path / "x.safetensors", random_tensors()
    for wrong in (
        [tensors[0].T, *tensors[1:]],
        [tensors[0].astype(np.float64), *tensors[1:]],
        tensors[:2],
    ):
        with pytest.raises(ValueError):
            write_float32(path, SHAPES, iter(wrong), lambda num_bytes: None)
