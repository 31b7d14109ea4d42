"""From what was trained to what is shipped, and back: the files that `mezzo.weights` puts beside the language half.

vision.safetensors        encoder, projector and the decoder's update, float16
vision.json               what a reader of them has to know
scaffolding.safetensors   codes and heads, float16: nothing that answers needs them, training that goes on does
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mezzo.kit.files import replace_json, sha256_of_file
from mezzo.model.config import ModelConfig
from mezzo.model.layout import HF_MULTIMODAL_SAVED
from mezzo.model.vision_config import VisionConfig
from mezzo.train.lora import stored_updates
from mezzo.train.state import replace_tensors
from mezzo.train.vision_half import VisionHalf
from mezzo.weights.vision_half import SETTINGS, TENSORS

SCAFFOLDING = "scaffolding.safetensors"
_DECODER_PREFIX = "language_model.model."
_SHIPPED_PREFIX = "language_model."


def write_package(half: VisionHalf, config: ModelConfig, folder: Path) -> None:
    """Write a package into `folder`, file by file, each whole or not at all.

    config   of the whole network, vision included
    Raises: OverflowError for a weight that float16 does not hold; OSError.
    """
    assert config.vision is not None
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / TENSORS
    _save(target, vision_tensors(half, config) | lora_tensors(half, config))
    _save(folder / SCAFFOLDING, scaffolding_tensors(half))
    replace_json(folder / SETTINGS, settings(config.vision) | {"sha256": sha256_of_file(target)})


def read_package(half: VisionHalf, config: ModelConfig, folder: Path) -> None:
    """Fill `half` with what `write_package` wrote, rounded to float16.

    Raises: ValueError for a package of another shape; OSError, SafetensorError.
    """
    tensors = load_file(folder / TENSORS) | load_file(folder / SCAFFOLDING)
    wanted = vision_tensors(half, config) | lora_tensors(half, config) | scaffolding_tensors(half)
    if unequal := sorted(wanted.keys() ^ tensors.keys()):
        raise ValueError(f"{folder} has another shape: {unequal[0]} is in one of the two alone")
    for name, tensor in wanted.items():  # views of the parameters
        if tensor.shape != tensors[name].shape:
            shapes = f"{tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
            raise ValueError(f"{folder} has another shape: {name} is {shapes}")
        tensor.copy_(tensors[name])


def scaffolding_tensors(half: VisionHalf) -> dict[str, Tensor]:
    """Return codes and heads by name."""
    modules = {"codes": half.codes, "heads": half.heads}
    return {
        f"{m}.{name}": p.detach() for m, module in modules.items() for name, p in module.named_parameters()
    }


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
    """Return the decoder's update: `NAME.lora_a` (rank, in) and `NAME.lora_b` (out, rank) for each stored matrix."""
    updates = {name.replace("/", "."): p for name, p in half.lora.items()}
    tensors: dict[str, Tensor] = {}
    for stored, (a, b) in stored_updates(updates, config, HF_MULTIMODAL_SAVED).items():
        name = _SHIPPED_PREFIX + stored.removeprefix(_DECODER_PREFIX)
        tensors |= {f"{name}.lora_a": a, f"{name}.lora_b": b}
    return tensors


def _save(target: Path, tensors: dict[str, Tensor]) -> None:
    replace_tensors(target, {name: _float16(name, tensor) for name, tensor in tensors.items()})
    target.chmod(0o644)  # written for its owner alone, and shipped to all


def _float16(name: str, tensor: Tensor) -> Tensor:
    packed = tensor.to("cpu", torch.float16).contiguous().clone()
    if not torch.isfinite(packed).all():
        raise OverflowError(f"{name} has weights that float16 does not hold")
    return packed
