"""From what was trained to what is shipped: the files that `mezzo.weights` puts beside the language half."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mezzo.kit.files import replace_json, sha256_of_file
from mezzo.model.config import ModelConfig
from mezzo.model.layout import HF_MULTIMODAL_SAVED
from mezzo.model.vision_config import VisionConfig
from mezzo.train.vision_half import VisionHalf

_DECODER_PREFIX = "language_model.model."
_SHIPPED_PREFIX = "language_model."


def write_package(half: VisionHalf, config: ModelConfig, folder: Path) -> None:
    """Write `vision.safetensors` (float16) and `vision.json` into `folder`.

    config   of the whole network, vision included
    Raises: OverflowError for a weight that float16 does not hold; OSError.
    """
    assert config.vision is not None
    tensors = vision_tensors(half, config) | lora_tensors(half, config)
    packed = {name: _float16(name, tensor) for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "vision.safetensors"
    partial = target.with_name(".vision.safetensors.partial")
    save_file(packed, partial)
    partial.replace(target)
    replace_json(folder / "vision.json", settings(config.vision) | {"sha256": sha256_of_file(target)})


def settings(vision: VisionConfig) -> dict[str, object]:
    """Return what a reader of the tensors has to know, by the names of the Hugging Face layout."""
    return {
        "vision_config": {
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "patch_size": vision.patch_size,
            "rope_theta": vision.rope_theta,
            "hidden_act": vision.hidden_act,
            "image_size": vision.image_size,
        },
        "spatial_merge_size": vision.spatial_merge_size,
        "projector_hidden_act": vision.projector_act,
        "multimodal_projector_bias": vision.projector_bias,
        "image_mean": list(vision.image_mean),
        "image_std": list(vision.image_std),
    }


def vision_tensors(half: VisionHalf, config: ModelConfig) -> dict[str, Tensor]:
    """Return encoder and projector by the names that checkpoints are saved with."""
    parameters = {f"vision.{name}": p.detach() for name, p in half.vision.named_parameters()}
    places = HF_MULTIMODAL_SAVED.places(config, parameters)
    return {name: place.rows_of(parameters[place.parameter]) for name, place in places.items()}


def lora_tensors(half: VisionHalf, config: ModelConfig) -> dict[str, Tensor]:
    """Return the decoder's update: `NAME.lora_a` (rank, in) and `NAME.lora_b` (out, rank) for each stored matrix.

    Matrices that mezzo computes as one (queries, keys and values; gate and up) share one `a`; each gets its rows of b.
    """
    updates = {name.replace("/", "."): p.detach() for name, p in half.lora.items()}
    matrices = {name.removesuffix(".a") for name in updates if name.endswith(".a")}
    parameters = {f"decoder.{name}.weight": updates[f"{name}.b"] for name in matrices}
    tensors = {}
    for stored, place in HF_MULTIMODAL_SAVED.places(config, parameters).items():
        matrix = place.parameter.removeprefix("decoder.").removesuffix(".weight")
        name = _SHIPPED_PREFIX + stored.removeprefix(_DECODER_PREFIX).removesuffix(".weight")
        tensors[f"{name}.lora_a"] = updates[f"{matrix}.a"]
        tensors[f"{name}.lora_b"] = place.rows_of(updates[f"{matrix}.b"])
    return tensors


def _float16(name: str, tensor: Tensor) -> Tensor:
    packed = tensor.to("cpu", torch.float16).contiguous().clone()
    if not torch.isfinite(packed).all():
        raise OverflowError(f"{name} has weights that float16 does not hold")
    return packed
