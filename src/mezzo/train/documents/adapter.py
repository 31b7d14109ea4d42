"""What was learnt, for others: beside the weights in PEFT's form, and merged into them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mezzo.kit.files import replace_json, sync_to_disk
from mezzo.model.config import ModelConfig
from mezzo.model.decoder import Decoder
from mezzo.model.layout import HF_MULTIMODAL, HF_TEXT
from mezzo.train.lora import TARGETS, LoraLinear

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
# With the name of their parent: the vision encoder has matrices of these last names too.
_TARGET_MODULES = [f"self_attn.{name}_proj" for name in "qkvo"] + [
    f"mlp.{name}_proj" for name in ("gate", "up", "down")
]


def adapter_tensors(updates: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return the update by PEFT's names: `….lora_A.weight` (rank, in) and `….lora_B.weight` (out, rank), float32.

    updates   as `add_lora` names them
    Matrices that mezzo computes as one (queries, keys and values; gate and up) share one A; each gets its rows of B.
    """
    layout = HF_TEXT if config.vision is None else HF_MULTIMODAL
    matrices = {name.removesuffix(".b") for name in updates if name.endswith(".b")}
    parameters = {f"decoder.{name}.weight": updates[f"{name}.b"].detach() for name in matrices}
    tensors = {}
    for stored, place in layout.places(config, parameters).items():
        matrix = place.parameter.removeprefix("decoder.").removesuffix(".weight")
        name = _PREFIX + stored.removesuffix(".weight")
        a, b = updates[f"{matrix}.a"].detach(), place.rows_of(parameters[place.parameter])
        tensors[f"{name}.lora_A.weight"] = a.to("cpu", torch.float32).clone()
        tensors[f"{name}.lora_B.weight"] = b.to("cpu", torch.float32).contiguous().clone()
    return tensors


def write_adapter(updates: Mapping[str, Tensor], config: ModelConfig, base: str, folder: Path) -> None:
    """Write a folder that PEFT loads, and vLLM with `--lora-modules`. `base` names the weights it belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{ADAPTER}.partial"
    save_file(adapter_tensors(updates, config), partial, metadata={"format": "pt"})
    sync_to_disk(partial)
    partial.replace(folder / ADAPTER)
    rank = next(tensor.shape[0] for name, tensor in updates.items() if name.endswith(".a"))
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,  # the scale is part of B
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": _TARGET_MODULES,
    }
    replace_json(folder / ADAPTER_CONFIG, settings)


@torch.no_grad()
def merge_lora(decoder: Decoder) -> None:
    """Add each update to its matrix, in float32, rounded once to the matrix's dtype, and take the updates away."""
    for layer in decoder.layers:
        for name in TARGETS:
            parent_name, _, child = name.partition(".")
            parent = getattr(layer, parent_name)
            lora: LoraLinear = getattr(parent, child)
            weight = lora.base.weight
            weight.copy_(weight.float() + lora.b @ lora.a)
            setattr(parent, child, lora.base)
