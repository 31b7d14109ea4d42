"""Loading a checkpoint folder into a `Network`: safetensors only, part by part, nothing left over.

Everything that can be refused is refused from the files' headers, before the first weight is read. Peak memory is the
model in its new dtype and a few megabytes. Checked by: tests/model/test_loading_memory.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from mezzo.model.fp8 import FP8, FP8_PART_BYTES, Dequantizer, checked_scale, scale_of, scaled_weight
from mezzo.model.layout import MISTRAL, Layout, Place, hf_layout, paired_rows
from mezzo.model.network import Network
from mezzo.model.tensor_file import PART_BYTES, PartReader, StoredTensor, read_header
from mezzo.model.weight_files import weight_files, weight_layout

_HEAD, _EMBEDDINGS = "decoder.output.weight", "decoder.tok_embeddings.weight"
# Other formats need scales beside them; a plain copy would load without a word and answer nonsense.
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class StoredWeights:
    """All tensors of a checkpoint by name, file after file, and whose names these are."""

    folder: Path
    layout: Layout
    tensors: dict[str, StoredTensor]
    num_bytes: int


def load_network(
    folder: Path,
    config: ModelConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: Callable[[int, int], None] = lambda loaded, total: None,
) -> Network:
    """Load the weights in `folder` onto `device`, matrices as `dtype`.

    `on_progress` is called with bytes read and bytes in all, after every part of a tensor and at the end. The
    network's configuration is `config`, but for embeddings that the files show not to be tied.
    Raises: UnsupportedCheckpoint naming a tensor that is missing, unknown or of the wrong shape or dtype, or a
    file that is damaged.
    """
    stored = read_headers(folder)
    reader = PartReader()
    if config.tied_embeddings and _has_head_of_its_own(stored, config, reader):
        config = replace(config, tied_embeddings=False)
    _check_number_of_layers(stored, config)
    with torch.device("meta"):  # shapes without memory: what is refused is refused before any is taken
        shapes = dict(Network.from_config(config, dtype).named_parameters(remove_duplicate=False))
    jobs = _plan(stored, stored.layout.places(config, shapes), shapes, config)
    with device:  # memory is allocated, not written: parameters begin uninitialised
        network = Network.from_config(config, dtype)
    parameters = dict(network.named_parameters(remove_duplicate=False))
    loaded = 0

    def advance(num_bytes: int) -> None:
        nonlocal loaded
        loaded += num_bytes
        on_progress(loaded, stored.num_bytes)

    with torch.inference_mode():
        copier = _Copier(reader, config, advance)
        for job in jobs:
            copier.copy(job, parameters[job.place.parameter])
    on_progress(stored.num_bytes, stored.num_bytes)  # headers and tensors without effect are not read
    return network.requires_grad_(False).eval()


def read_headers(folder: Path) -> StoredWeights:
    """Read what tensors the files of a checkpoint have. Raises: UnsupportedCheckpoint."""
    tensors: dict[str, StoredTensor] = {}
    files = weight_files(folder)
    for file in files:
        for tensor in read_header(file):
            if tensor.name in tensors:
                raise UnsupportedCheckpoint(
                    f"{tensor.name} is in {tensors[tensor.name].path.name} and again in {file.name}"
                )
            tensors[tensor.name] = tensor
    layout = MISTRAL if weight_layout(folder) == "mistral" else hf_layout(tensors)
    return StoredWeights(folder, layout, tensors, sum(file.stat().st_size for file in files))


def _check_number_of_layers(stored: StoredWeights, config: ModelConfig) -> None:
    """Refuse layers that the files cannot have, before as many are made."""
    num_layers = config.n_layers + (0 if config.vision is None else config.vision.num_hidden_layers)
    if num_layers > len(stored.tensors):
        raise UnsupportedCheckpoint(
            f"{stored.folder} has {len(stored.tensors)} tensors, and the configuration {num_layers} layers"
        )


@dataclass(frozen=True)
class _Job:
    """A stored tensor to be copied into its place, with its scale if it is in FP8."""

    tensor: StoredTensor
    place: Place
    scale: StoredTensor | None


def _plan(
    stored: StoredWeights,
    places: dict[str, Place],
    parameters: dict[str, torch.nn.Parameter],
    config: ModelConfig,
) -> list[_Job]:
    """Decide about every stored tensor. Raises: UnsupportedCheckpoint for one too many, too few or of a wrong kind."""
    if config.tied_embeddings:
        passed_over = {name for name, place in places.items() if place.parameter == _HEAD}
        places = {name: place for name, place in places.items() if name not in passed_over}
    else:
        passed_over = set()
    jobs = []
    for name, place in places.items():
        if (tensor := stored.tensors.get(name)) is not None:
            _check_shape(tensor, place.rows_of(parameters[place.parameter]))
            jobs.append(_Job(tensor, place, _scale(tensor, stored, config)))
    for name in sorted(stored.tensors.keys() - places.keys() - passed_over):
        if not stored.layout.without_effect.fullmatch(name):
            _check_scale_is_wanted(name, stored, places, config)
    if missing := sorted(places.keys() - stored.tensors.keys()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UnsupportedCheckpoint(f"{stored.folder} lacks {missing[0]}{more}")
    in_file_order = {name: number for number, name in enumerate(stored.tensors)}
    return sorted(jobs, key=lambda job: in_file_order[job.tensor.name])


def _check_shape(tensor: StoredTensor, target: Tensor) -> None:
    if target.shape != tensor.shape:
        raise UnsupportedCheckpoint(
            f"{tensor.name} has shape {tensor.shape}, but the configuration makes it {tuple(target.shape)}"
        )


def _scale(tensor: StoredTensor, stored: StoredWeights, config: ModelConfig) -> StoredTensor | None:
    if tensor.dtype is FP8 and config.quantization is not None and tensor.name.endswith(".weight"):
        return scale_of(tensor, stored.tensors, stored.layout, config.quantization)
    if tensor.dtype not in _DTYPES:
        raise UnsupportedCheckpoint(f"{tensor.name} has dtype {tensor.dtype}, which is not supported")
    return None


def _check_scale_is_wanted(
    name: str, stored: StoredWeights, places: dict[str, Place], config: ModelConfig
) -> None:
    """A tensor without a place is the scale of an FP8 weight that has one, or it is refused."""
    weight = scaled_weight(name, stored.layout) if config.quantization is not None else None
    if weight is None or weight not in places:
        raise UnsupportedCheckpoint(f"unknown tensor {name}")
    if weight in stored.tensors and stored.tensors[weight].dtype is not FP8:
        raise UnsupportedCheckpoint(f"{name} is left over: {weight} is not stored in FP8")


class _Copier:
    """Copies stored tensors into parameters, all through the same buffers."""

    def __init__(self, reader: PartReader, config: ModelConfig, advance: Callable[[int], None]) -> None:
        self._reader = reader
        self._advance = advance
        self._dequantizer = Dequantizer()
        self._block_size = None if config.quantization is None else config.quantization.block_size

    def copy(self, job: _Job, parameter: Tensor) -> None:
        """Read the tensor part by part; each part is converted, and its rows put in mezzo's order, on the way."""
        rows, num_heads = job.place.rows_of(parameter), job.place.num_interleaved_heads
        head_dim = rows.shape[0] // num_heads if num_heads else 1
        target = paired_rows(rows, num_heads) if num_heads else rows
        scale = None if job.scale is None else self._read_scale(job.scale)
        part_bytes = PART_BYTES if scale is None else FP8_PART_BYTES
        for first, part in self._reader.parts(job.tensor, rows_together=head_dim, part_bytes=part_bytes):
            if scale is not None:
                values = self._dequantizer.dequantize(
                    part, scale, first_row=first, block_size=self._block_size, dtype=rows.dtype
                )
            else:
                values = part
            if num_heads:
                values = values.view(-1, head_dim // 2, 2, *values.shape[1:])
            begin = first // head_dim
            target[begin : begin + values.shape[0]].copy_(values)
            self._advance(part.nbytes)

    def _read_scale(self, scale: StoredTensor) -> Tensor:
        self._advance(scale.num_bytes)
        return checked_scale(scale.name, self._reader.whole(scale))


def _has_head_of_its_own(stored: StoredWeights, config: ModelConfig, reader: PartReader) -> bool:
    """Tell whether the files hold a head that differs from the embeddings, whatever the configuration says.

    Configurations of multimodal checkpoints do say so wrongly: a `mistral3` that is silent counts as tied, and those
    saved before transformers 5 are silent. The weights decide, as in the reference.
    """
    names = {
        place.parameter: name for name, place in stored.layout.places(config, (_HEAD, _EMBEDDINGS)).items()
    }
    head, table = stored.tensors.get(names[_HEAD]), stored.tensors.get(names[_EMBEDDINGS])
    if head is None or table is None:
        return False
    if (head.shape, head.dtype) != (table.shape, table.dtype):
        return True
    both = zip(reader.parts(head), PartReader().parts(table), strict=True)
    return not all(
        torch.equal(one.view(torch.uint8), other.view(torch.uint8)) for (_, one), (_, other) in both
    )
