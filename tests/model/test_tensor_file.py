"""safetensors headers are not believed, and parts are the tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mezzo.model.errors import UnsupportedCheckpoint
from mezzo.model.tensor_file import PartReader, read_header


def file_of(folder: Path, header: Any, num_bytes: int) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(num_bytes))
    return path


def entry(start: Any = 0, end: Any = 8, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


GOOD = {"a": entry(0, 8), "b": entry(8, 16)}
FAULTS: dict[str, tuple[Any, int, str]] = {
    "hole": ({"a": entry(0, 8), "b": entry(12, 20)}, 20, "b does not begin where"),
    "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "b does not begin where"),
    "hole at the start": ({"a": entry(4, 12)}, 12, "a does not begin where"),
    "too short": (GOOD, 15, "describes .* bytes, the file has"),
    "too long": (GOOD, 17, "describes .* bytes, the file has"),
    "shape": ({"a": entry(0, 8, (3,))}, 8, "a has 8 bytes, its shape and dtype make it 12"),
    "negative": ({"a": entry(0, 8, (-2, -1))}, 8, "a has a shape or offsets that are no sizes"),
    "float sizes": ({"a": entry(0, 8, (2.0,))}, 8, "a has a shape or offsets that are no sizes"),
    "true": ({"a": entry(0, 8, (2, True))}, 8, "a has a shape or offsets that are no sizes"),
    "backwards": ({"a": entry(8, 0)}, 8, "a has -8 bytes"),
    "huge": ({"a": entry(0, 8, (2**62, 2**62))}, 8, "a has 8 bytes"),
    "dtype": ({"a": entry(dtype="F4")}, 8, "a has the unknown dtype 'F4'"),
    "dtype list": ({"a": entry(dtype=[])}, 8, ""),
    "three offsets": ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]}}, 8, ""),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, 8, "data_offsets"),
    "no object": ([1], 0, ""),
    "number": ({"a": 3}, 0, ""),
    "twice": (b'{"a":' + json.dumps(entry()).encode() + b',"a":' + json.dumps(entry()).encode() + b"}", 8, "twice"),
    "no utf-8": (b'{"\xff": 1}', 0, ""),
    "deep": (b"[" * 100_000, 0, ""),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_header_that_does_not_account_for_the_file(tmp_path: Path, fault: str) -> None:
    header, num_bytes, message = FAULTS[fault]
    with pytest.raises(UnsupportedCheckpoint, match=rf"x\.safetensors is damaged: .*{message}"):
        read_header(file_of(tmp_path, header, num_bytes))


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 8, (1 << 40).to_bytes(8, "little") + b"{}"])
def test_a_header_that_does_not_fit(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UnsupportedCheckpoint, match=r"x\.safetensors is damaged: its header of"):
        read_header(path)


def test_tensors_come_in_the_order_of_their_data(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry(8, 16),
        "empty": entry(8, 8, (0, 4)),
        "a": entry(0, 8),
    }
    assert [tensor.name for tensor in read_header(file_of(tmp_path, header, 16))] == ["a", "empty", "b"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int64])
@pytest.mark.parametrize("part_bytes", [1, 100, 1 << 20])
@pytest.mark.parametrize("rows_together", [1, 4])
def test_parts_are_the_tensor(
    tmp_path: Path, dtype: torch.dtype, part_bytes: int, rows_together: int
) -> None:
    given = torch.randn(12, 3, 5, generator=torch.Generator().manual_seed(1)).mul(9).to(dtype)
    save_file({"a": given, "zero": torch.tensor(3.0), "none": torch.ones(0, 2)}, tmp_path / "x.safetensors")
    tensors = {tensor.name: tensor for tensor in read_header(tmp_path / "x.safetensors")}
    reader = PartReader()
    rows = torch.zeros_like(given)
    for first, part in reader.parts(tensors["a"], rows_together=rows_together, part_bytes=part_bytes):
        assert len(part) % rows_together == 0
        rows[first : first + len(part)] = part
    assert torch.equal(rows.view(torch.uint8), given.view(torch.uint8))
    assert [part.tolist() for _, part in reader.parts(tensors["zero"])] == [[3.0]]
    assert reader.whole(tensors["zero"]).shape == ()
    assert reader.whole(tensors["none"]).shape == (0, 2)


def test_data_that_begins_anywhere(tmp_path: Path) -> None:
    header = {"a": entry(0, 1, (1,), "U8"), "b": entry(1, 9)}
    path = file_of(tmp_path, header, 9)
    content = bytearray(path.read_bytes())
    content[-8:] = torch.tensor([1.5, -2.5]).numpy().tobytes()
    path.write_bytes(content)
    assert PartReader().whole(read_header(path)[1]).tolist() == [1.5, -2.5]


def test_a_file_that_went_away(tmp_path: Path) -> None:
    path = file_of(tmp_path, GOOD, 16)
    tensor = read_header(path)[0]
    path.unlink()
    with pytest.raises(UnsupportedCheckpoint, match=r"x\.safetensors cannot be read"):
        PartReader().whole(tensor)
