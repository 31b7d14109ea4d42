"""Loading a checkpoint folder into a `Network`: safetensors only, tensor by tensor, nothing left over.

Names are those of the Hugging Face layout. Peak memory is the model in its new dtype plus one tensor of the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from mezzo.model.network import Network
from mezzo.model.vision_config import VisionConfig


@dataclass(frozen=True)
class Place:
    """Where a tensor of the file belongs: a parameter of `Network`, or some rows of one that is fused."""

    parameter: str
    rows: slice = field(default_factory=lambda: slice(None))


_DECODER = {
    "model.embed_tokens.weight": "decoder.tok_embeddings.weight",
    "model.norm.weight": "decoder.norm.weight",
    "lm_head.weight": "decoder.output.weight",
}
_DECODER_LAYER = {
    "input_layernorm.weight": "attention_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.o_proj.weight": "attention.wo.weight",
    "mlp.down_proj.weight": "feed_forward.w2.weight",
}
_VISION = {
    "vision_tower.patch_conv.weight": "vision.encoder.patch_conv.weight",
    "vision_tower.ln_pre.weight": "vision.encoder.ln_pre.weight",
    "multi_modal_projector.linear_1.weight": "vision.projector.w_in.weight",
    "multi_modal_projector.linear_2.weight": "vision.projector.w_out.weight",
}
_VISION_LAYER = {
    "attention_norm.weight": "attention_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "attention.o_proj.weight": "attention.wo.weight",
    "feed_forward.down_proj.weight": "feed_forward.w2.weight",
}
# Multimodal checkpoints are saved with the first of these names or, in the order of the modules in memory, with the
# second; places are listed under the third.
_PREFIXES = (
    ("language_model.model.", "model.language_model.", "model."),
    ("language_model.lm_head.", "lm_head.", "lm_head."),
    ("vision_tower.", "model.vision_tower.", "vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector.", "multi_modal_projector."),
)
# Other formats need scales beside them; a plain copy would load without a word and answer nonsense.
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Constants that older exporters saved beside the weights; the model computes them itself.
_DERIVED = re.compile(
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq|vision_tower\.patch_positional_embedding\.inv_freq"
)
_ROWS_COMPARED_AT_ONCE = 4096


def load_network(
    folder: Path,
    config: ModelConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: Callable[[int, int], None] = lambda loaded, total: None,
) -> Network:
    """Load the weights in `folder` onto `device`, matrices as `dtype`.

    `on_progress` is called with bytes read and bytes in all, after every tensor and at the end. The network's
    configuration is `config`, but for embeddings that the file shows not to be tied.
    Raises: UnsupportedCheckpoint naming a tensor that is missing, unknown or of the wrong shape or dtype, or a
    file that is damaged.
    """
    files = weight_files(folder)
    if config.tied_embeddings and _has_head_of_its_own(files, config):
        config = replace(config, tied_embeddings=False)
    with device:  # memory is allocated, not written: parameters begin uninitialised
        network = Network.from_config(config, dtype)
    parameters = dict(network.named_parameters(remove_duplicate=False))
    places = tensor_places(config)
    total = sum(file.stat().st_size for file in files)
    loaded = 0
    seen: set[str] = set()
    with torch.inference_mode():
        for file_name, tensor in _tensors(files, device):
            loaded += tensor.numel() * tensor.element_size()
            on_progress(loaded, total)
            name = listed_name(file_name, config)
            if _DERIVED.fullmatch(name) or (name == "lm_head.weight" and config.tied_embeddings):
                continue
            if name not in places:
                raise UnsupportedCheckpoint(f"unknown tensor {file_name}")
            _copy(file_name, tensor, parameters[places[name].parameter][places[name].rows])
            seen.add(name)
    on_progress(total, total)  # headers are no tensors
    if missing := sorted(set(places) - seen):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UnsupportedCheckpoint(f"{folder} lacks {missing[0]}{more}")
    return network.requires_grad_(False).eval()


def _copy(name: str, tensor: Tensor, target: Tensor) -> None:
    if target.shape != tensor.shape:
        raise UnsupportedCheckpoint(
            f"{name} has shape {tuple(tensor.shape)}, but the configuration makes it {tuple(target.shape)}"
        )
    if tensor.dtype not in _DTYPES:
        raise UnsupportedCheckpoint(f"{name} has dtype {tensor.dtype}, which is not supported")
    target.copy_(tensor)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint: those of its index, else `model.safetensors`.

    Raises: UnsupportedCheckpoint if there are none, or the index is damaged or names a file that is not there.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(
                {str(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnsupportedCheckpoint(f"{index} is damaged: {error!r}") from error
        if any(Path(name).name != name for name in names):
            raise UnsupportedCheckpoint(f"{index} names files outside its folder")
    else:
        names = ["model.safetensors"]
    for name in names:
        if not (folder / name).is_file():
            raise UnsupportedCheckpoint(f"{folder} lacks {name}")
    return [folder / name for name in names]


def _tensors(files: list[Path], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    for file in files:
        try:
            with safe_open(file, framework="pt", device=str(device)) as shard:
                for name in shard.keys():  # noqa: SIM118 - not a mapping
                    yield name, shard.get_tensor(name)
        except SafetensorError as error:
            raise UnsupportedCheckpoint(f"{file.name} is damaged: {error}") from error


def listed_name(name: str, config: ModelConfig) -> str:
    """Return the name that `tensor_places` lists a tensor of the file under."""
    if config.vision is not None:
        for saved, in_memory, listed in _PREFIXES:
            for prefix in (saved, in_memory):
                if name.startswith(prefix):
                    return listed + name.removeprefix(prefix)
    return name


def tensor_places(config: ModelConfig) -> dict[str, Place]:
    """Return every tensor that a checkpoint of this configuration holds, and where it belongs."""
    places = {name: Place(parameter) for name, parameter in _DECODER.items()}
    if config.tied_embeddings:
        del places["lm_head.weight"]
    query_rows, kv_rows = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    for i in range(config.n_layers):
        ours, theirs = f"decoder.layers.{i}.", f"model.layers.{i}."
        places |= {theirs + name: Place(ours + parameter) for name, parameter in _DECODER_LAYER.items()}
        places |= _fused(ours, theirs, "self_attn", "mlp", (query_rows, kv_rows, kv_rows), config.hidden_dim)
    return places if config.vision is None else places | _vision_places(config.vision)


def _vision_places(config: VisionConfig) -> dict[str, Place]:
    names = dict(_VISION)
    if config.projector_norm:
        names["multi_modal_projector.norm.weight"] = "vision.projector.norm.weight"
    if config.patch_merger:
        names["multi_modal_projector.patch_merger.merging_layer.weight"] = "vision.projector.merger.weight"
    if config.projector_bias:
        names["multi_modal_projector.linear_1.bias"] = "vision.projector.w_in.bias"
        names["multi_modal_projector.linear_2.bias"] = "vision.projector.w_out.bias"
    places = {name: Place(parameter) for name, parameter in names.items()}
    width = config.hidden_size
    for i in range(config.num_hidden_layers):
        ours, theirs = f"vision.encoder.layers.{i}.", f"vision_tower.transformer.layers.{i}."
        places |= {theirs + name: Place(ours + parameter) for name, parameter in _VISION_LAYER.items()}
        sizes = (width, width, width)
        places |= _fused(ours, theirs, "attention", "feed_forward", sizes, config.intermediate_size)
    return places


def _fused(
    ours: str, theirs: str, attention: str, feed_forward: str, qkv_rows: tuple[int, int, int], hidden_dim: int
) -> dict[str, Place]:
    """Return the places in the two fused matrices of a layer: queries, keys, values; gate, up."""
    query, key, value = qkv_rows
    wqkv, w13 = ours + "attention.wqkv.weight", ours + "feed_forward.w13.weight"
    return {
        f"{theirs}{attention}.q_proj.weight": Place(wqkv, slice(0, query)),
        f"{theirs}{attention}.k_proj.weight": Place(wqkv, slice(query, query + key)),
        f"{theirs}{attention}.v_proj.weight": Place(wqkv, slice(query + key, query + key + value)),
        f"{theirs}{feed_forward}.gate_proj.weight": Place(w13, slice(0, hidden_dim)),
        f"{theirs}{feed_forward}.up_proj.weight": Place(w13, slice(hidden_dim, 2 * hidden_dim)),
    }


def _has_head_of_its_own(files: list[Path], config: ModelConfig) -> bool:
    """Tell whether the file holds a head that differs from the embeddings, whatever the configuration says.

    Configurations of multimodal checkpoints do say so wrongly: a `mistral3` that is silent counts as tied, and those
    saved before transformers 5 are silent. The weights decide, as in the reference.
    """
    found: dict[str, tuple[Path, str]] = {}
    for file in files:
        for name in _names(file):
            found[listed_name(name, config)] = (file, name)
    if not {"lm_head.weight", "model.embed_tokens.weight"} <= found.keys():
        return False
    (head_file, head_name), (table_file, table_name) = (
        found["lm_head.weight"],
        found["model.embed_tokens.weight"],
    )
    with safe_open(head_file, framework="pt") as heads, safe_open(table_file, framework="pt") as tables:
        head, table = heads.get_slice(head_name), tables.get_slice(table_name)
        if head.get_shape() != table.get_shape():
            return True
        starts = range(0, head.get_shape()[0], _ROWS_COMPARED_AT_ONCE)
        parts = (slice(start, start + _ROWS_COMPARED_AT_ONCE) for start in starts)
        return not all(torch.equal(head[part], table[part]) for part in parts)


def _names(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="pt") as shard:
            return list(shard.keys())
    except SafetensorError as error:
        raise UnsupportedCheckpoint(f"{file.name} is damaged: {error}") from error
