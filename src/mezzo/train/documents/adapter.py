"""What was learnt, for others: beside the weights in PEFT's form, and merged into them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mezzo.kit.files import replace_json
from mezzo.model.config import ModelConfig
from mezzo.model.decoder import Decoder
from mezzo.model.layout import HF_MULTIMODAL, HF_TEXT
from mezzo.model.lora_names import STORED_A, STORED_B
from mezzo.train.lora import TARGETS, LoraLinear, stored_updates
from mezzo.train.state import replace_tensors

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
# With the name of their parent: the vision encoder has matrices of these last names too.
_TARGET_MODULES = [f"self_attn.{name}_proj" for name in "qkvo"] + [
    f"mlp.{name}_proj" for name in ("gate", "up", "down")
]


def adapter_tensors(updates: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return the update by PEFT's names: `….lora_A.weight` (rank, in) and `….lora_B.weight` (out, rank), float32.

    updates   as `add_lora` names them
    """
    layout = HF_TEXT if config.vision is None else HF_MULTIMODAL
    tensors = {}
    for stored, (a, b) in stored_updates(updates, config, layout).items():
        tensors[f"{_PREFIX}{stored}{STORED_A}"] = a.to("cpu", torch.float32).clone()
        tensors[f"{_PREFIX}{stored}{STORED_B}"] = b.to("cpu", torch.float32).contiguous().clone()
    return tensors


def write_adapter(updates: Mapping[str, Tensor], config: ModelConfig, base: str, folder: Path) -> None:
    """Write a folder that PEFT loads, and vLLM with `--lora-modules`. `base` names the weights it belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_tensors(folder / ADAPTER, adapter_tensors(updates, config), {"format": "pt"})
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
