"""Loading a checkpoint folder into a `Decoder`: safetensors only, tensor by tensor, nothing left over.

Names are those of the Hugging Face layout. Peak memory is the model in its new dtype plus one tensor of the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from mezzo.model.decoder import Decoder

_TOP = {
    "model.embed_tokens.weight": "tok_embeddings.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "input_layernorm.weight": "attention_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attention.wqkv.weight",
    "self_attn.k_proj.weight": "attention.wqkv.weight",
    "self_attn.v_proj.weight": "attention.wqkv.weight",
    "self_attn.o_proj.weight": "attention.wo.weight",
    "mlp.gate_proj.weight": "feed_forward.w13.weight",
    "mlp.up_proj.weight": "feed_forward.w13.weight",
    "mlp.down_proj.weight": "feed_forward.w2.weight",
}
_LAYER_NAME = re.compile(r"model\.layers\.(\d+)\.(.+)")
# Other formats need scales beside them; a plain copy would load without a word and answer nonsense.
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Constants that older exporters saved beside the weights; the model computes them itself.
_DERIVED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


def load_decoder(
    folder: Path,
    config: ModelConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: Callable[[int, int], None] = lambda loaded, total: None,
) -> Decoder:
    """Load the weights in `folder` onto `device`, matrices as `dtype`.

    `on_progress` is called with bytes read and bytes in all, after every tensor and at the end.
    Raises: UnsupportedCheckpoint naming a tensor that is missing, unknown or of the wrong shape or dtype, or a
    file that is damaged.
    """
    with device:  # memory is allocated, not written: parameters begin uninitialised
        decoder = Decoder(config, dtype)
    parameters = dict(decoder.named_parameters(remove_duplicate=False))
    files = weight_files(folder)
    total = sum(file.stat().st_size for file in files)
    loaded = 0
    seen: set[str] = set()
    with torch.inference_mode():
        for name, tensor in _tensors(files, device):
            loaded += tensor.numel() * tensor.element_size()
            on_progress(loaded, total)
            if _DERIVED.fullmatch(name) or (name == "lm_head.weight" and config.tied_embeddings):
                continue
            target = _target(name, parameters, config)
            if target.shape != tensor.shape:
                raise UnsupportedCheckpoint(
                    f"{name} has shape {tuple(tensor.shape)}, but the configuration makes it {tuple(target.shape)}"
                )
            if tensor.dtype not in _DTYPES:
                raise UnsupportedCheckpoint(f"{name} has dtype {tensor.dtype}, which is not supported")
            target.copy_(tensor)
            seen.add(name)
    on_progress(total, total)  # headers are no tensors
    if missing := sorted(_expected(config) - seen):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UnsupportedCheckpoint(f"{folder} lacks {missing[0]}{more}")
    return decoder.requires_grad_(False).eval()


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


def _target(name: str, parameters: dict[str, torch.nn.Parameter], config: ModelConfig) -> Tensor:
    """Return the parameter, or the rows of a fused one, that tensor `name` belongs in."""
    if name in _TOP:
        return parameters[_TOP[name]]
    match = _LAYER_NAME.fullmatch(name)
    if match is None or match[2] not in _LAYER or int(match[1]) >= config.n_layers:
        raise UnsupportedCheckpoint(f"unknown tensor {name}")
    parameter = parameters[f"layers.{match[1]}.{_LAYER[match[2]]}"]
    rows = _fused_rows(match[2], config)
    return parameter if rows is None else parameter[rows]


def _fused_rows(name: str, config: ModelConfig) -> slice | None:
    query_rows = config.n_heads * config.head_dim
    kv_rows = config.n_kv_heads * config.head_dim
    return {
        "self_attn.q_proj.weight": slice(0, query_rows),
        "self_attn.k_proj.weight": slice(query_rows, query_rows + kv_rows),
        "self_attn.v_proj.weight": slice(query_rows + kv_rows, query_rows + 2 * kv_rows),
        "mlp.gate_proj.weight": slice(0, config.hidden_dim),
        "mlp.up_proj.weight": slice(config.hidden_dim, 2 * config.hidden_dim),
    }.get(name)


def _expected(config: ModelConfig) -> set[str]:
    top = set(_TOP) - ({"lm_head.weight"} if config.tied_embeddings else set())
    return top | {f"model.layers.{layer}.{name}" for layer in range(config.n_layers) for name in _LAYER}
