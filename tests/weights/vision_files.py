"""A vision half small enough to be made in every test, for the tiny language models of GgufRecipe."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mezzo.kit.files import write_json
from mezzo.weights.sources import NANO
from mezzo.weights.vision_half import CHAT_TEMPLATE, SETTINGS, TENSORS, VisionHalf

SPARE = ["<notebook>", "<script>", "<empty>"]
"""Control tokens of a tiny GGUF that a vision half may have."""
VISION_CONFIG: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 4,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
}


def vision_tensors(width: int = 64, rank: int = 3, seed: int = 5) -> dict[str, np.ndarray]:
    """Return a vision half of VISION_CONFIG for a language half of this width, two of whose matrices it updates."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 0.2) -> np.ndarray:
        return (random.standard_normal(shape) * scale).astype(np.float16)

    def ones(size: int) -> np.ndarray:
        return 1 + normal(size)

    hidden, inner, patch = (
        VISION_CONFIG[name] for name in ("hidden_size", "intermediate_size", "patch_size")
    )
    tensors = {
        "vision_tower.patch_conv.weight": normal(hidden, 3, patch, patch),
        "vision_tower.ln_pre.weight": ones(hidden),
        "multi_modal_projector.norm.weight": ones(hidden),
        "multi_modal_projector.patch_merger.merging_layer.weight": normal(hidden, 4 * hidden),
        "multi_modal_projector.linear_1.weight": normal(width, hidden),
        "multi_modal_projector.linear_2.weight": normal(width, width),
        "language_model.layers.0.self_attn.k_proj.lora_a": normal(rank, width),
        "language_model.layers.0.self_attn.k_proj.lora_b": normal(32, rank),
        "language_model.layers.1.mlp.down_proj.lora_a": normal(rank, 96),
        "language_model.layers.1.mlp.down_proj.lora_b": normal(width, rank),
    }
    for layer in range(VISION_CONFIG["num_hidden_layers"]):
        at = f"vision_tower.transformer.layers.{layer}"
        tensors |= {f"{at}.{name}.weight": ones(hidden) for name in ("attention_norm", "ffn_norm")}
        tensors |= {f"{at}.attention.{name}_proj.weight": normal(hidden, hidden) for name in "qkvo"}
        tensors |= {f"{at}.feed_forward.{name}_proj.weight": normal(inner, hidden) for name in ("gate", "up")}
        tensors[f"{at}.feed_forward.down_proj.weight"] = normal(hidden, inner)
    return tensors


def write_vision(folder: Path, tensors: dict[str, np.ndarray] | None = None, **settings: Any) -> VisionHalf:
    """Write a vision half for a language half that has the SPARE tokens; its chat template is nano's.

    tensors    to be written instead of `vision_tensors()`
    settings   other fields of vision.json, None takes one out
    """
    folder.mkdir(exist_ok=True)
    save_file(vision_tensors() if tensors is None else tensors, folder / TENSORS)
    values = {
        "vision_config": VISION_CONFIG,
        "spatial_merge_size": 2,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": False,
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.3, 0.25, 0.2],
        "sha256": hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest(),
    } | settings
    write_json(folder / SETTINGS, {name: value for name, value in values.items() if value is not None})
    assert NANO.vision is not None
    (folder / CHAT_TEMPLATE).write_text(NANO.vision.chat_template())
    image_end, image_break, image = SPARE
    return VisionHalf(folder, image_token=image, image_break_token=image_break, image_end_token=image_end)
