"""Each number format against its definition, decoded here byte by byte; refusals of what is not supported."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from mezzo.weights import WeightsError
from mezzo.weights.gguf_file import GgufFile

BLOCK = 32


def half(data: bytes) -> np.float32:
    return np.float32(struct.unpack("<e", data)[0])


def decode_f32(data: bytes) -> list[np.float32]:
    return [np.float32(value) for value in struct.unpack(f"<{len(data) // 4}f", data)]


def decode_f16(data: bytes) -> list[np.float32]:
    return [half(data[i : i + 2]) for i in range(0, len(data), 2)]


def decode_bf16(data: bytes) -> list[np.float32]:
    """The upper 16 bits of a float32."""
    return [np.float32(struct.unpack("<f", b"\0\0" + data[i : i + 2])[0]) for i in range(0, len(data), 2)]


def decode_q8_0(data: bytes) -> list[np.float32]:
    """Blocks of a scale in half precision and 32 signed bytes."""
    values = []
    for start in range(0, len(data), 34):
        scale = half(data[start : start + 2])
        values += [np.float32(byte) * scale for byte in struct.unpack("<32b", data[start + 2 : start + 34])]
    return values


def nibbles(data: bytes) -> list[int]:
    """Lower halves are the first 16 values of a block, upper halves the last 16."""
    return [byte & 15 for byte in data] + [byte >> 4 for byte in data]


def decode_q4_0(data: bytes) -> list[np.float32]:
    values = []
    for start in range(0, len(data), 18):
        scale = half(data[start : start + 2])
        values += [np.float32(nibble - 8) * scale for nibble in nibbles(data[start + 2 : start + 18])]
    return values


def decode_q4_1(data: bytes) -> list[np.float32]:
    values = []
    for start in range(0, len(data), 20):
        scale, minimum = half(data[start : start + 2]), half(data[start + 2 : start + 4])
        values += [np.float32(nibble) * scale + minimum for nibble in nibbles(data[start + 4 : start + 20])]
    return values


def random_blocks(kind: Type, num_blocks: int) -> bytes:
    """Make blocks of random quantised values whose floats are finite and of both signs."""
    random = np.random.default_rng(7)

    def halves(count: int) -> bytes:
        return random.standard_normal(count).astype("<f2").tobytes()

    if kind == Type.F32:
        return random.standard_normal(num_blocks * BLOCK).astype("<f4").tobytes()
    if kind == Type.F16:
        return halves(num_blocks * BLOCK)
    if kind == Type.BF16:
        return (
            (random.standard_normal(num_blocks * BLOCK).astype("<f4").view("<u4") >> 16)
            .astype("<u2")
            .tobytes()
        )
    num_halves, num_bytes = {Type.Q8_0: (1, 32), Type.Q4_0: (1, 16), Type.Q4_1: (2, 16)}[kind]
    return b"".join(halves(num_halves) + random.bytes(num_bytes) for _ in range(num_blocks))


@pytest.mark.parametrize(
    ("kind", "decode"),
    [
        (Type.F32, decode_f32),
        (Type.F16, decode_f16),
        (Type.BF16, decode_bf16),
        (Type.Q8_0, decode_q8_0),
        (Type.Q4_0, decode_q4_0),
        (Type.Q4_1, decode_q4_1),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("tied", [True, False])
def test_tensor_values_are_exactly_those_of_the_format(
    make_gguf: Callable[..., Path], kind: Type, decode: Callable[[bytes], list[np.float32]], tied: bool
) -> None:
    rows, columns = 96, 64
    data = random_blocks(kind, rows * columns // BLOCK)
    dtype = {Type.F32: np.float32, Type.F16: np.float16}.get(kind, np.uint8)
    raw = np.frombuffer(data, dtype=dtype).reshape(rows, -1)
    name = "blk.1.ffn_up.weight"

    file = GgufFile(make_gguf(tied=tied, tensors={name: raw}, types={name: kind}))
    read = file.tensors[name].read()

    assert read.dtype == np.float32
    assert read.shape == (rows, columns)
    assert np.isfinite(read).all()
    assert read.ravel().tolist() == [float(value) for value in decode(data)]
    assert ("output.weight" in file.tensors) is not tied


def test_another_number_format_is_refused_by_tensor_and_type(make_gguf: Callable[..., Path]) -> None:
    values = np.ones((96, 64), np.float32)
    path = make_gguf(tensors={"blk.0.ffn_up.weight": values}, types={"blk.0.ffn_up.weight": Type.Q5_0})
    with pytest.raises(
        WeightsError, match=r"blk\.0\.ffn_up\.weight is stored as Q5_0; supported are F32, F16, BF16"
    ):
        GgufFile(path)


@pytest.mark.parametrize("keep", [0, 3, 20, 500, 3000, -64])
def test_file_cut_short_is_refused(make_gguf: Callable[..., Path], keep: int) -> None:
    path = make_gguf()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="not a readable GGUF file"):
        GgufFile(path)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("This is no model. " * 100)
    with pytest.raises(WeightsError, match="not a readable GGUF file"):
        GgufFile(path)


def test_big_endian_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    writer = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("token_embd.weight", np.ones((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(WeightsError, match="big-endian"):
        GgufFile(path)


@pytest.mark.parametrize("value", [1e-5, 1e-6, 5e-6, 10000.0, 1000000.0, 0.1])
def test_decimal_is_the_shortest_that_rounds_to_the_stored_value(
    make_gguf: Callable[..., Path], value: float
) -> None:
    file = GgufFile(make_gguf(metadata={"llama.attention.layer_norm_rms_epsilon": value}))
    assert file.decimal("llama.attention.layer_norm_rms_epsilon") == value


def test_missing_and_wrong_metadata_are_named(make_gguf: Callable[..., Path]) -> None:
    file = GgufFile(make_gguf(metadata={"llama.block_count": "many", "llama.context_length": None}))
    with pytest.raises(WeightsError, match=r"metadata llama\.block_count = many"):
        file.integer("llama.block_count")
    with pytest.raises(WeightsError, match=r"lacks the metadata llama\.context_length"):
        file.integer("llama.context_length")
    with pytest.raises(WeightsError, match=r"metadata general\.name = Tiny"):
        file.strings("general.name")
    with pytest.raises(WeightsError, match=r"metadata general\.name = Tiny"):
        file.decimal("general.name")
