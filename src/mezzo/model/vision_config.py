"""The shape of a vision encoder and of the projector that follows it, read from a checkpoint's configuration.

Field names are those of the `vision_encoder` block of Mistral's `params.json`. What is not supported is refused by
name, as in `mezzo.model.config`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mezzo.model.errors import UnsupportedCheckpoint, check_number, check_size

Activation = Literal["silu", "gelu", "gelu_tanh", "quick_gelu"]
# The names of the Hugging Face layout. Several stand for one function, computed in different ways.
_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu", "swish": "silu",
    "gelu": "gelu", "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh", "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "gelu_accurate": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}  # fmt: skip
# Of CLIP (arXiv 2103.00020), which every Pixtral processor has taken over.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """A Pixtral vision encoder (arXiv 2410.07073) and its projector.

    image_size            longest edge of an image, in pixels; larger ones are scaled down before they come here
    patch_size            edge of a patch in pixels    spatial_merge_size   edge of a merged patch in patches
    image_token_id        the token whose embeddings are replaced by those of merged patches
    hidden_act            of the encoder's gated feed-forward
    projector_norm        RMSNorm before the projector (`add_pre_mm_projector_layer_norm`), with projector_norm_eps
    patch_merger          a matrix that merges patches (`mm_projector_id` is `patch_merge`); without it
                          spatial_merge_size is 1
    projector_bias        whether both matrices of the projector have biases; projector_act stands between them
    image_mean, image_std of the three colours, for pixels from 0 to 1
    """

    hidden_size: int
    num_channels: int = 3
    image_size: int
    patch_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    rope_theta: float = 10000.0
    hidden_act: Activation = "silu"
    spatial_merge_size: int = 1
    image_token_id: int
    projector_norm: bool = False
    projector_norm_eps: float = 1e-5
    patch_merger: bool = False
    projector_bias: bool = False
    projector_act: Activation = "gelu"
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self) -> None:
        for name in (
            "hidden_size",
            "image_size",
            "patch_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "spatial_merge_size",
        ):
            check_size(f"vision {name}", getattr(self, name))
        check_number("vision rope_theta", self.rope_theta, above=0)
        check_number("projector_norm_eps", self.projector_norm_eps, at_least=0)
        if self.num_channels != 3:
            raise UnsupportedCheckpoint(
                f"vision num_channels {self.num_channels} is not supported; supported is 3"
            )
        if self.hidden_size % (4 * self.num_attention_heads):
            raise UnsupportedCheckpoint(
                "rotary embedding in two dimensions needs a vision hidden_size that is a multiple of 4 for each head; "
                f"{self.hidden_size} for {self.num_attention_heads} heads is not"
            )
        if self.spatial_merge_size > 1 and not self.patch_merger:
            raise UnsupportedCheckpoint("spatial_merge_size beyond 1 without a patch merger is not supported")
        if len(self.image_mean) != 3 or not all(map(math.isfinite, self.image_mean)):
            raise UnsupportedCheckpoint(f"image_mean must be three numbers, not {self.image_mean}")
        if len(self.image_std) != 3 or not all(0 < std < math.inf for std in self.image_std):
            raise UnsupportedCheckpoint(f"image_std must be three numbers above 0, not {self.image_std}")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def merged_patch_size(self) -> int:
        """Edge in pixels of what becomes one token; the edges of an image are multiples of it."""
        return self.patch_size * self.spatial_merge_size

    def layer_flops(self, num_patches: int) -> int:
        """Return the operations of one encoder layer on one image of `num_patches`, a multiply-add being two."""
        matrices = 4 * self.hidden_size**2 + 3 * self.hidden_size * self.intermediate_size
        scores_and_sums = 2 * num_patches * self.hidden_size
        return 2 * num_patches * (matrices + scores_and_sums)

    def ends_flops(self, num_patches: int, dim: int) -> int:
        """Return the operations before the first layer and after the last: patch embedding and projector, to `dim`."""
        embedding = num_patches * self.num_channels * self.patch_size**2 * self.hidden_size
        num_tokens = num_patches // self.spatial_merge_size**2
        merger = self.spatial_merge_size**2 * self.hidden_size**2 if self.patch_merger else 0
        return 2 * (embedding + num_tokens * (merger + self.hidden_size * dim + dim**2))


def vision_from_hf(raw: dict[str, Any], processor: dict[str, Any]) -> VisionConfig:
    """Translate a completed `config.json` (`hf_defaults.complete`) and the image processor's block.

    Raises: UnsupportedCheckpoint naming what is not supported. Values that are no numbers raise TypeError or
    ValueError, for `ModelConfig.from_hf` to name.
    """
    vision = raw["vision_config"]
    if vision["model_type"] != "pixtral":
        raise UnsupportedCheckpoint(
            f"vision_config: model type {vision['model_type']!r} is not supported; supported is pixtral"
        )
    num_layers = int(vision["num_hidden_layers"])
    _check_features(raw, num_layers)
    _check_processor(processor)
    is_mistral3 = raw["model_type"] == "mistral3"
    config = VisionConfig(
        hidden_size=int(vision["hidden_size"]),
        num_channels=int(vision["num_channels"]),
        image_size=_longest_edge(vision, processor),
        patch_size=_square(vision, "patch_size"),
        intermediate_size=int(vision["intermediate_size"]),
        num_hidden_layers=num_layers,
        num_attention_heads=int(vision["num_attention_heads"]),
        rope_theta=_rope_theta(vision),
        hidden_act=_activation(vision, "hidden_act"),
        spatial_merge_size=int(raw["spatial_merge_size"]) if is_mistral3 else 1,
        # Two names of one setting; where both are given, the reference reads this one last.
        image_token_id=int(raw.get("image_token_id", raw["image_token_index"])),
        projector_norm=is_mistral3,
        projector_norm_eps=float(raw["text_config"]["rms_norm_eps"]),
        patch_merger=is_mistral3,
        projector_bias=bool(raw["multimodal_projector_bias"]),
        projector_act=_activation(raw, "projector_hidden_act"),
        image_mean=_colours(processor, "image_mean", CLIP_MEAN),
        image_std=_colours(processor, "image_std", CLIP_STD),
    )
    if int(vision.get("head_dim") or config.head_dim) != config.head_dim:
        raise UnsupportedCheckpoint(
            f"vision head_dim {vision['head_dim']} is not supported; supported is hidden_size / num_attention_heads"
        )
    return config


def read_image_processor(folder: Path) -> dict[str, Any]:
    """Return the image processor's settings in a checkpoint folder, empty where there are none.

    `processor_config.json` goes before `preprocessor_config.json`, as in transformers 5.
    Raises: UnsupportedCheckpoint for a file that is broken.
    """
    block = _json_object(folder / "processor_config.json").get("image_processor")
    if block is None:
        return _json_object(folder / "preprocessor_config.json")
    if not isinstance(block, dict):
        raise UnsupportedCheckpoint("processor_config.json: image_processor holds no JSON object")
    return block


def _json_object(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UnsupportedCheckpoint(f"{path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise UnsupportedCheckpoint(f"{path} holds no JSON object")
    return raw


def _check_features(raw: dict[str, Any], num_layers: int) -> None:
    """Only the output of the last layer is made, so nothing else can be chosen."""
    chosen = raw["vision_feature_layer"]
    # States are counted with the first layer's input as 0, so the last layer's output is -1 and num_layers.
    if chosen not in (-1, num_layers, [-1], [num_layers]):
        raise UnsupportedCheckpoint(
            f"vision_feature_layer {chosen} is not supported; supported is the last layer, -1 or {num_layers}"
        )
    strategy = raw.get("vision_feature_select_strategy", "full")
    if raw["model_type"] == "llava" and strategy != "full":
        raise UnsupportedCheckpoint(
            f"vision_feature_select_strategy {strategy!r} is not supported; supported is 'full'"
        )


def _check_processor(processor: dict[str, Any]) -> None:
    for name in ("do_rescale", "do_normalize"):
        if not processor.get(name, True):
            raise UnsupportedCheckpoint(f"image processor: {name} false is not supported")
    factor = processor.get("rescale_factor", 1 / 255)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise UnsupportedCheckpoint(
            f"image processor: rescale_factor {factor} is not supported; supported is 1/255"
        )
    if processor.get("do_center_crop"):
        raise UnsupportedCheckpoint("image processor: do_center_crop is not supported")


def _longest_edge(vision: dict[str, Any], processor: dict[str, Any]) -> int:
    """The processor's word goes before the encoder's: it is what images were scaled to."""
    size = processor.get("size")
    if size is None:
        return _square(vision, "image_size")
    if not isinstance(size, dict) or "longest_edge" not in size:
        raise UnsupportedCheckpoint(
            f"image processor: size {size} is not supported; supported is longest_edge"
        )
    return int(size["longest_edge"])


def _square(vision: dict[str, Any], name: str) -> int:
    value = vision[name]
    if not isinstance(value, list):
        return int(value)
    if len(value) != 2 or value[0] != value[1]:
        raise UnsupportedCheckpoint(f"vision {name} {value} is not supported; supported are squares")
    return int(value[0])


def _rope_theta(vision: dict[str, Any]) -> float:
    given: dict[str, Any] = vision.get("rope_scaling") or vision.get("rope_parameters") or {}
    if unknown := sorted(set(given) - {"rope_theta", "rope_type", "type"}):
        raise UnsupportedCheckpoint(f"vision rope parameter {unknown[0]!r} is not supported")
    kind = given.get("rope_type") or given.get("type") or "axial"
    if kind not in ("axial", "default"):  # one thing, named anew in transformers 5
        raise UnsupportedCheckpoint(
            f"vision rope type {kind!r} is not supported; supported are axial, default"
        )
    return float(given.get("rope_theta") or vision.get("rope_theta") or 10000.0)


def _activation(raw: dict[str, Any], name: str) -> Activation:
    try:
        return _ACTIVATIONS[raw[name]]
    except (KeyError, TypeError):
        supported = ", ".join(_ACTIVATIONS)
        raise UnsupportedCheckpoint(
            f"{name} {raw[name]!r} is not supported in the vision encoder; supported are {supported}"
        ) from None


def _colours(
    processor: dict[str, Any], name: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    value = processor.get(name)
    if value is None:
        return default
    if not isinstance(value, list) or len(value) != 3:
        raise UnsupportedCheckpoint(f"image processor: {name} must be three numbers, not {value}")
    red, green, blue = value
    return float(red), float(green), float(blue)
