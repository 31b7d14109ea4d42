"""A network with its decoder quantized, packed once and then read from a file.

The first load of a checkpoint reads and packs it, which takes seconds; the result is kept, and later starts read it as
it is, into huge pages where the system has them: a step goes through all of it, and would have to look up every page
of 4 kB (docs/decisions/0024-cpu-kernels.md). The file is safetensors, with mezzo's parameter
names: matrices of the decoder are bytes as `mezzo.model.kernels.packing` lays them out, everything else is float32.
A matrix whose update is kept apart has two more beside it, `NAME.down` and `NAME.up`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from mezzo.model.checkpoint import load_network, read_headers
from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from mezzo.model.kernels.library import Kernels, Layer, Matrix, Norm
from mezzo.model.kernels.packing import (
    GROUP,
    TILE,
    QuantizedMatrix,
    interleave_gates,
    pack,
    pack_exactly,
)
from mezzo.model.lora_names import MERGED_LORA
from mezzo.model.merged_lora import merged_updates
from mezzo.model.quantized import QuantizedDecoder
from mezzo.model.tensor_file import read_header
from mezzo.model.vision import Vision
from mezzo.model.weight_files import weight_files

_LAYOUT_VERSION = 2
_HEAD, _EMBEDDINGS = "decoder.output.weight", "decoder.tok_embeddings.weight"
_DOWN, _UP = ".down", ".up"
_CPU = torch.device("cpu")
_HUGE_PAGE = 1 << 21


@dataclass(frozen=True)
class QuantizedNetwork:
    """A language model on the CPU's kernels and its vision half in float32; `mezzo.model.network.Network` for these.

    row_cost   as that of `Network`: a step of 8 rows takes three times as long as one of a single row
               (python -m benchmarks.step)
    """

    row_cost = 0.25

    decoder: QuantizedDecoder
    vision: Vision | None
    number_format: str
    num_bytes: int

    @property
    def config(self) -> ModelConfig:
        return self.decoder.config


def why_not_quantized(config: ModelConfig, block_size: int) -> str | None:
    """Return what the kernels cannot do of this model, None if they can do all."""
    if config.head_dim % 16 or block_size % 16:
        return (
            f"heads of {config.head_dim} and blocks of {block_size} positions are not both in multiples of 16"
        )
    widths = (config.dim, config.n_heads * config.head_dim, config.hidden_dim)
    if any(width % GROUP for width in widths):
        return f"the widths {widths} are not all multiples of {GROUP}"
    return None


def load_quantized(
    folder: Path,
    config: ModelConfig,
    *,
    num_bits: int,
    kernels: Kernels,
    packed_folder: Path | None,
    on_progress: Callable[[int, int], None] = lambda loaded, total: None,
    on_warning: Callable[[str], None] = lambda message: None,
) -> QuantizedNetwork:
    """Load the weights in `folder`, its decoder's matrices in `num_bits`: 8, or 4.

    In eight bits, a matrix that was made of four keeps its four, also one that was updated since if the checkpoint says
    by what (`mezzo.model.merged_lora`); in four bits, embeddings and head have eight. What was packed is kept in
    `packed_folder`, and found there the next time; `on_warning` is told if it cannot be written.
    Raises: UnsupportedCheckpoint as `load_network` and `merged_updates`; ValueError for weights beyond float16.
    """
    if packed_folder is None:
        return _network(config, _packed(folder, config, num_bits, on_progress), num_bits, kernels)
    of_folder = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
    path = packed_folder / f"{of_folder}-int{num_bits}-{_fingerprint(folder, config)}.safetensors"
    if (kept := _kept(path, on_warning)) is None:
        tensors = _packed(folder, config, num_bits, on_progress)
        try:
            _write(path, tensors)
        except (OSError, SafetensorError) as error:
            on_warning(f"packed weights could not be kept for the next start: {error}")
            return _network(config, tensors, num_bits, kernels)
        for outdated in set(packed_folder.glob(f"{of_folder}-int{num_bits}-*")) - {path}:
            outdated.unlink(missing_ok=True)
        kept = _kept(path, on_warning) or tensors
    return _network(config, kept, num_bits, kernels)


def _fingerprint(folder: Path, config: ModelConfig) -> str:
    """Tell whether packed weights are of these files: by size and time, since reading them is what is to be avoided."""
    paths = [*weight_files(folder), *folder.glob(MERGED_LORA)]
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.blake2b(repr((_LAYOUT_VERSION, files, config)).encode(), digest_size=16).hexdigest()


def _packed(
    folder: Path, config: ModelConfig, num_bits: int, on_progress: Callable[[int, int], None]
) -> dict[str, Tensor]:
    """Read the checkpoint and pack it, parameter by parameter; each one's float numbers are given up at once."""
    stored = read_headers(folder)
    dtypes = {tensor.dtype for tensor in stored.tensors.values() if len(tensor.shape) == 2}
    dtype = torch.bfloat16 if dtypes <= {torch.bfloat16, torch.float8_e4m3fn} else torch.float32
    network = load_network(folder, config, dtype=dtype, device=_CPU, on_progress=on_progress)
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    updates = merged_updates(folder, config, stored.layout, shapes)
    tensors: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        if name.startswith("decoder.") and parameter.dim() == 2:
            tensors |= _packed_matrix(name, parameter.data, num_bits, updates.get(name))
        else:
            tensors[name] = parameter.data.float().clone()
        parameter.data = torch.empty(0)
    return tensors


def _packed_matrix(
    name: str, weight: Tensor, num_bits: int, update: tuple[Tensor, Tensor] | None
) -> dict[str, Tensor]:
    if name.endswith(".w13.weight"):
        weight = interleave_gates(weight)
        update = update and (update[0], interleave_gates(update[1]))
    if update is not None:
        a, b = update
        base = pack_exactly(weight.float() - b @ a)
        if base.num_bits == 4:
            # Whole groups of ranks; what is added is zero.
            down, up = F.pad(a, (0, 0, 0, -len(a) % GROUP)), F.pad(b, (0, -len(a) % GROUP))
            return {name: base.data, name + _DOWN: pack(down, 8).data, name + _UP: pack(up, 8).data}
    if num_bits == 8:
        return {name: pack_exactly(weight).data}
    return {name: pack(weight, 8 if name in (_HEAD, _EMBEDDINGS) else 4).data}


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        save_file(tensors, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _kept(path: Path, on_warning: Callable[[str], None]) -> dict[str, Tensor] | None:
    """Read a file of packed weights. None where there is none, or only a damaged one, which is made anew."""
    if not path.exists():
        return None
    try:
        stored = read_header(path)
    except UnsupportedCheckpoint as error:
        on_warning(f"packed weights are packed again: {error}")
        return None
    data = _read_into_huge_pages(path)
    return {
        tensor.name: data[tensor.start : tensor.start + tensor.num_bytes]
        .view(tensor.dtype)
        .view(tensor.shape)
        for tensor in stored
    }


def _read_into_huge_pages(path: Path) -> Tensor:
    size = path.stat().st_size
    memory = mmap.mmap(-1, -(-size // _HUGE_PAGE) * _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    with path.open("rb", buffering=0) as file:
        num_read = 0
        while num := file.readinto(memoryview(memory)[num_read:size]):  # a call reads two gigabytes at most
            num_read += num
    if num_read < size:
        raise OSError(f"{path} became shorter while it was read")
    return torch.frombuffer(memory, dtype=torch.uint8)


def _network(
    config: ModelConfig, tensors: dict[str, Tensor], num_bits: int, kernels: Kernels
) -> QuantizedNetwork:
    config = replace(config, tied_embeddings=_EMBEDDINGS not in tensors)
    outputs = {_HEAD: config.vocab_size, _EMBEDDINGS: config.vocab_size}

    def quantized(name: str) -> QuantizedMatrix:
        data = tensors[name]
        return QuantizedMatrix(data, outputs.get(name, data.shape[0] * TILE))

    def matrix(name: str) -> Matrix:
        has_update = name + _DOWN in tensors
        return Matrix(
            quantized(name), (quantized(name + _DOWN), quantized(name + _UP)) if has_update else None
        )

    def norm(name: str) -> Norm:
        return Norm(tensors[name], config.norm_eps)

    layers = [
        Layer(
            attention_norm=norm(f"{layer}.attention_norm.weight"),
            wqkv=matrix(f"{layer}.attention.wqkv.weight"),
            wo=matrix(f"{layer}.attention.wo.weight"),
            ffn_norm=norm(f"{layer}.ffn_norm.weight"),
            w13=matrix(f"{layer}.feed_forward.w13.weight"),
            w2=matrix(f"{layer}.feed_forward.w2.weight"),
        )
        for layer in (f"decoder.layers.{number}" for number in range(config.n_layers))
    ]
    head = matrix(_HEAD)
    embeddings = head if config.tied_embeddings else matrix(_EMBEDDINGS)
    decoder = QuantizedDecoder(
        config, kernels, embeddings=embeddings, layers=layers, norm=norm("decoder.norm.weight"), output=head
    )
    num_bytes = sum(tensor.nbytes for tensor in tensors.values())
    return QuantizedNetwork(decoder, _vision(config, tensors), f"int{num_bits}", num_bytes)


def _vision(config: ModelConfig, tensors: dict[str, Tensor]) -> Vision | None:
    if config.vision is None:
        return None
    vision = Vision(config.vision, config.dim, torch.float32)
    own = {name.removeprefix("vision."): t for name, t in tensors.items() if name.startswith("vision.")}
    vision.load_state_dict(own, assign=True)
    return vision.requires_grad_(False).eval()
