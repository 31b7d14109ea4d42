"""The compiled kernels as functions of tensors.

The sources are in csrc/; installing mezzo compiles them where there is a C compiler (hatch_build.py). They run on
x86-64 processors with AVX2, and use AVX-512 with VNNI where it is there. Elsewhere `check_kernels` says why not, and
the decoder runs on PyTorch's own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from mezzo.model.kernels.packing import QuantizedMatrix

LIBRARY = Path(__file__).parent / "libmezzo_kernels.so"
_STORE, _ADD, _GATE = range(3)
_PARTS_OF_LAYER = ("attention_norm", "ffn_norm", "wqkv", "wo", "w13", "w2")

_pointer, _int64 = ctypes.c_void_p, ctypes.c_int64


class KernelsMissing(Exception):
    """The kernels cannot be used here; the message says why."""


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("data", _pointer), ("num_outputs", _int64), ("num_inputs", _int64), ("num_bits", _int64), ("down", _pointer),
        ("up", _pointer),
    )  # fmt: skip


class _HeadsShape(ctypes.Structure):
    _fields_ = tuple((name, _int64) for name in ("n_heads", "n_kv_heads", "head_dim", "block_size", "window"))


class _StepRows(ctypes.Structure):
    _fields_ = (
        ("num_rows", _int64), ("cos", _pointer), ("sin", _pointer), ("query_scale", _pointer), ("slots", _pointer),
        ("spans", _pointer), ("num_spans", _int64), ("tables", _pointer),
    )  # fmt: skip


class _Layer(ctypes.Structure):
    _fields_ = tuple((name, _pointer) for name in _PARTS_OF_LAYER)


class _Layers(ctypes.Structure):
    _fields_ = (("layers", _pointer), ("num_layers", _int64), ("norm_eps", ctypes.c_float))


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError:
        raise KernelsMissing(
            "they were not compiled when mezzo was installed: that needs a C compiler"
        ) from None
    if not library.kernels_supported():
        raise KernelsMissing("they need a processor with AVX2")
    library.linear.argtypes = [
        _pointer, _pointer, _int64, _pointer, ctypes.c_float, ctypes.c_int, _pointer, _pointer,
    ]  # fmt: skip
    library.linear.restype = None
    library.linear_scratch_bytes.argtypes = [_int64, _int64, _int64]
    library.linear_scratch_bytes.restype = _int64
    library.embed.argtypes = [_pointer, _pointer, _int64, _pointer]
    library.embed.restype = None
    library.attend.argtypes = [_pointer, _pointer, _pointer, _pointer, _int64, _pointer]
    library.layers_scratch_bytes.argtypes = [_pointer, _int64]
    library.layers_scratch_bytes.restype = _int64
    library.run_layers.argtypes = [_pointer, _pointer, _pointer, _pointer, _pointer, _int64, _pointer]
    library.cache_record_bytes.argtypes = [_pointer]
    library.cache_record_bytes.restype = _int64
    return library


def check_kernels() -> None:
    """Raises: KernelsMissing where there are none for this machine."""
    _library()


class Norm:
    """The root mean square normalisation of a product's inputs: weight (inputs,) float32."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight.contiguous()
        self.eps = eps
        self.address = self.weight.data_ptr()


class Matrix:
    """A quantized matrix that the kernels can multiply with. Keeps the memory of `quantized` alive.

    update   the matrices (down, up) of an update of low rank, to multiply with W + up down; their rank is whole groups
    """

    def __init__(
        self, quantized: QuantizedMatrix, update: tuple[QuantizedMatrix, QuantizedMatrix] | None = None
    ) -> None:
        self.quantized = quantized
        self.num_outputs = quantized.num_outputs
        self.rank = 0
        self._update: tuple[Matrix, Matrix] | None = None
        addresses: tuple[int | None, int | None] = (None, None)
        if update is not None:
            down, up = (Matrix(narrow) for narrow in update)
            self.rank = up.quantized.num_inputs
            shapes = (
                down.quantized.num_padded_outputs,
                down.quantized.num_inputs,
                up.quantized.num_padded_outputs,
            )
            if shapes != (self.rank, quantized.num_inputs, quantized.num_padded_outputs):
                raise ValueError(f"an update of {shapes} and rank {self.rank} does not fit its matrix")
            self._update = down, up
            addresses = down.address, up.address
        self._struct = _Matrix(
            quantized.data.data_ptr(),
            quantized.num_padded_outputs,
            quantized.num_inputs,
            quantized.num_bits,
            *addresses,
        )
        self.address: int = ctypes.addressof(self._struct)


class Heads:
    """How heads and cache are laid out. window: positions that a query sees, None for all."""

    def __init__(
        self, *, n_heads: int, n_kv_heads: int, head_dim: int, block_size: int, window: int | None
    ) -> None:
        self._struct = _HeadsShape(n_heads, n_kv_heads, head_dim, block_size, window or 1 << 40)
        self.address = ctypes.addressof(self._struct)
        self.record_bytes = int(_library().cache_record_bytes(self.address))
        self.n_heads = n_heads
        self.head_dim = head_dim


@dataclass(frozen=True)
class Layer:
    """The matrices of a decoder's layer, named as in `mezzo.model.decoder`; w13 has gates and ups interleaved."""

    attention_norm: Norm
    wqkv: Matrix
    wo: Matrix
    ffn_norm: Norm
    w13: Matrix
    w2: Matrix


class Layers:
    """All layers of a decoder, their norms with one eps. Keeps their memory alive."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self._structs = (_Layer * len(layers))(
            *(_Layer(*(getattr(layer, name).address for name in _PARTS_OF_LAYER)) for layer in layers)
        )
        self._struct = _Layers(ctypes.addressof(self._structs), len(layers), layers[0].attention_norm.eps)
        self.address = ctypes.addressof(self._struct)


@dataclass(frozen=True)
class StepRows:
    """What rows a step has, the same for all layers.

    cos, sin    (rows, head_dim), the sine of the first half negative
    query_scale (rows,) or None
    slots       (rows,) int64, block * block_size + offset of each row's place in the cache
    spans       (spans, 4) int32: first row, number of rows, tokens before them, where in `tables` its blocks begin
    tables      (blocks,) int32
    """

    cos: Tensor
    sin: Tensor
    query_scale: Tensor | None
    slots: Tensor
    spans: Tensor
    tables: Tensor

    def as_struct(self) -> _StepRows:
        """Return the struct of it, which lives no longer than the tensors."""
        return _StepRows(
            self.slots.shape[0],
            self.cos.data_ptr(),
            self.sin.data_ptr(),
            None if self.query_scale is None else self.query_scale.data_ptr(),
            self.slots.data_ptr(),
            self.spans.data_ptr(),
            self.spans.shape[0],
            self.tables.data_ptr(),
        )


class Kernels:
    """The kernels on `num_threads` threads. One set per process: a second one takes the first one's threads.

    A row's result is the same bits whatever rows are computed with it, on whatever number of threads. All tensors
    are contiguous, on the CPU and float32 unless said otherwise. Raises: KernelsMissing, OSError for threads that the
    system refuses.
    """

    def __init__(self, num_threads: int, *, avx512: bool = True) -> None:
        self._library = _library()
        self.uses_avx512 = bool(self._library.use_avx512(int(avx512)))
        if error := self._library.pool_resize(num_threads):
            raise OSError(error, "the threads of the kernels could not be started")
        self.num_threads = num_threads
        self._scratch = torch.empty(0, dtype=torch.uint8)

    def linear(self, x: Tensor, matrix: Matrix, norm: Norm | None = None) -> Tensor:
        """x (rows, inputs) -> (rows, outputs padded to a multiple of 16), of x or of x normalised."""
        return self._product(
            x, matrix, norm, _STORE, x.new_empty(x.shape[0], matrix.quantized.num_padded_outputs)
        )

    def gated_linear(self, x: Tensor, matrix: Matrix, norm: Norm) -> Tensor:
        """x (rows, inputs) -> silu(gate) * up (rows, outputs / 2); the matrix is as `interleave_gates` makes it."""
        return self._product(x, matrix, norm, _GATE, x.new_empty(x.shape[0], matrix.num_outputs // 2))

    def add_linear(self, target: Tensor, x: Tensor, matrix: Matrix) -> None:
        """Add the product of x (rows, inputs) to `target` (rows, outputs)."""
        self._product(x, matrix, None, _ADD, target)

    def _product(self, x: Tensor, matrix: Matrix, norm: Norm | None, mode: int, out: Tensor) -> Tensor:
        num_rows, num_inputs = x.shape
        self._make_scratch(self._library.linear_scratch_bytes(num_rows, num_inputs, matrix.rank))
        self._library.linear(
            matrix.address,
            x.data_ptr(),
            num_rows,
            None if norm is None else norm.address,
            0.0 if norm is None else norm.eps,
            mode,
            out.data_ptr(),
            self._scratch.data_ptr(),
        )
        return out

    def embed(self, token_ids: Tensor, matrix: Matrix) -> Tensor:
        """token_ids (rows,) int64 -> those rows of the matrix, (rows, inputs)."""
        out = torch.empty(len(token_ids), matrix.quantized.num_inputs)
        self._library.embed(matrix.address, token_ids.data_ptr(), len(token_ids), out.data_ptr())
        return out

    def attend(self, heads: Tensor, shape: Heads, rows: StepRows, cache: Tensor) -> Tensor:
        """Rotate queries and keys, store keys and values, attend. `heads` is changed.

        heads       (rows, n_heads + 2 * n_kv_heads, head_dim): queries, keys, values
        cache       (n_kv_heads, num_blocks, record_bytes) uint8, one layer
        Returns (rows, n_heads * head_dim). Raises: MemoryError.
        """
        out = heads.new_empty(heads.shape[0], shape.n_heads * shape.head_dim)
        struct = rows.as_struct()
        _check_memory(
            self._library.attend(
                shape.address,
                ctypes.addressof(struct),
                heads.data_ptr(),
                cache.data_ptr(),
                cache.shape[1],
                out.data_ptr(),
            )
        )
        return out

    def run_layers(self, hidden: Tensor, layers: Layers, shape: Heads, rows: StepRows, cache: Tensor) -> None:
        """Compute all layers of `hidden` (rows, dim), in place: what the methods above compute one by one.

        cache       (layers, n_kv_heads, num_blocks, record_bytes) uint8
        Raises: MemoryError.
        """
        struct = rows.as_struct()
        self._make_scratch(self._library.layers_scratch_bytes(layers.address, hidden.shape[0]))
        _check_memory(
            self._library.run_layers(
                layers.address,
                shape.address,
                ctypes.addressof(struct),
                hidden.data_ptr(),
                cache.data_ptr(),
                cache.shape[2],
                self._scratch.data_ptr(),
            )
        )

    def _make_scratch(self, num_bytes: int) -> None:
        if num_bytes > self._scratch.shape[0]:
            self._scratch = torch.empty(num_bytes, dtype=torch.uint8)


def _check_memory(failed: int) -> None:
    if failed:
        raise MemoryError("no memory for the plan of an attention")
