"""Checkpoints of one network in every layout and number format, written the obvious way: whole, with PyTorch's own."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mezzo.model.config import ModelConfig
from tests.tiny import HF_CONFIG, MULTIMODAL_CONFIG, random_weights

FP8 = torch.float8_e4m3fn
HF_FP8 = {
    "quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None,
    "modules_to_not_convert": ["model.vision_tower", "model.multi_modal_projector", "lm_head"],
}  # fmt: skip
TEXT = HF_CONFIG | {"model_type": "mistral", "sliding_window": None, "rope_theta": 10000.0}
EYES = MULTIMODAL_CONFIG | {
    "text_config": TEXT | {"rms_norm_eps": 1e-5},
    "vision_config": MULTIMODAL_CONFIG["vision_config"] | {"hidden_act": "silu"},
}
PARAMS: dict[str, Any] = {
    "dim": 32, "n_layers": 2, "head_dim": 8, "hidden_dim": 64, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5,
    "vocab_size": 260, "rope_theta": 10000.0, "max_position_embeddings": 256,
}  # fmt: skip
VISION_PARAMS: dict[str, Any] = {
    "hidden_size": 16, "num_channels": 3, "image_size": 64, "max_image_size": 64, "patch_size": 4,
    "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2, "rope_theta": 10000.0,
    "spatial_merge_size": 2, "image_token_id": 257, "image_break_token_id": 258, "image_end_token_id": 259,
    "adapter_bias": False, "mm_projector_id": "patch_merge", "add_pre_mm_projector_layer_norm": True,
}  # fmt: skip
# Written down once more, by hand, as the table under test must not be its own judge.
_NATIVE_WORDS = (
    ("language_model.model.layers.", "layers."), ("language_model.model.embed_tokens.", "tok_embeddings."),
    ("language_model.model.norm.", "norm."), ("language_model.lm_head.", "output."),
    ("model.layers.", "layers."), ("model.embed_tokens.", "tok_embeddings."), ("model.norm.", "norm."),
    ("lm_head.", "output."), ("input_layernorm.", "attention_norm."), ("post_attention_layernorm.", "ffn_norm."),
    ("self_attn.", "attention."), ("attention.q_proj.", "attention.wq."), ("attention.k_proj.", "attention.wk."),
    ("attention.v_proj.", "attention.wv."), ("attention.o_proj.", "attention.wo."), ("mlp.", "feed_forward."),
    ("gate_proj.", "w1."), ("up_proj.", "w3."), ("down_proj.", "w2."), ("vision_tower.", "vision_encoder."),
    ("multi_modal_projector.norm.", "pre_mm_projector_norm."),
    ("multi_modal_projector.patch_merger.", "patch_merger."),
    ("multi_modal_projector.linear_1.", "vision_language_adapter.w_in."),
    ("multi_modal_projector.linear_2.", "vision_language_adapter.w_out."),
    ("weight_scale_inv", "qscale_weight"), ("activation_scale", "qscale_act"),
)  # fmt: skip


def hf_weights(raw: dict[str, Any]) -> dict[str, Tensor]:
    return random_weights(ModelConfig.from_hf(raw))


def native(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors of the Hugging Face layout, and put rotary pairs side by side. All heads are 8 wide."""
    renamed = {}
    for name, tensor in weights.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            order = [
                head + i + half for head in range(0, tensor.shape[0], 8) for i in range(4) for half in (0, 4)
            ]
            tensor = tensor.view(torch.uint8)[order].view(tensor.dtype)  # noqa: PLW2901
        for hf_word, word in _NATIVE_WORDS:
            name = name.replace(hf_word, word)  # noqa: PLW2901
        renamed[name] = tensor.contiguous()
    return renamed


def in_fp8(
    weights: dict[str, Tensor], block: tuple[int, int] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Store the decoder's matrices in FP8. Returns the tensors of the file, and what they stand for in float32."""
    stored: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if "_proj" not in name or "vision" in name or "projector" in name:
            stored[name] = meant[name] = tensor
            continue
        rows, columns = tensor.shape
        high, wide = block or (rows, columns)
        scales = torch.empty(-(-rows // high), -(-columns // wide))
        codes, values = torch.empty_like(tensor, dtype=FP8), torch.empty_like(tensor)
        for i in range(scales.shape[0]):
            for j in range(scales.shape[1]):
                part = (slice(i * high, (i + 1) * high), slice(j * wide, (j + 1) * wide))
                scales[i, j] = tensor[part].abs().max() / 448  # the largest number of the format
                codes[part] = (tensor[part] / scales[i, j]).to(FP8)
                values[part] = codes[part].float() * scales[i, j]
        stem = name.removesuffix("weight")
        stored |= {name: codes, f"{stem}weight_scale_inv": scales if block else scales.reshape(())}
        stored[f"{stem}activation_scale"] = torch.tensor(0.01)
        meant[name] = values
    return stored, meant


def write(
    folder: Path, raw: dict[str, Any], files: dict[str, dict[str, Tensor]], *, index: bool = False
) -> Path:
    """Write a configuration, whose kind its fields tell, and weights file by file."""
    folder.mkdir(exist_ok=True)
    (folder / ("params.json" if "dim" in raw else "config.json")).write_text(json.dumps(raw))
    for name, tensors in files.items():
        save_file(tensors, folder / name)
    if index:
        weight_map = {tensor: name for name, tensors in files.items() for tensor in tensors}
        stem = next(iter(files)).partition("-")[0]
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def halves(weights: dict[str, Tensor], stem: str) -> dict[str, dict[str, Tensor]]:
    """Split into two files, so that scales and their weights come apart both ways around."""
    names = sorted(weights, key=lambda name: zlib.crc32(name.encode()))
    parts = names[: len(names) // 2], names[len(names) // 2 :]
    return {
        f"{stem}-0000{i}-of-00002.safetensors": {n: weights[n] for n in p} for i, p in enumerate(parts, 1)
    }
