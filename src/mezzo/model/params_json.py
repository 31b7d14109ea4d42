"""Mistral's own `params.json`: read into a `ModelConfig`, and written from one.

Field names of `ModelConfig` and `VisionConfig` are those of this file already. What is in one and not understood here
is refused by name. Sources: mistral-inference's `args.py`; the files of published checkpoints, from Mistral 7B v0.3 to
Mistral Medium 3.5.
"""

from __future__ import annotations

from typing import Any

from mezzo.model.config import ModelConfig, RopeConfig, UnsupportedCheckpoint
from mezzo.model.quantization import quantization_from_params
from mezzo.model.vision_config import CLIP_MEAN, CLIP_STD, VisionConfig

_SIZES = ("dim", "n_layers", "head_dim", "hidden_dim", "n_heads", "n_kv_heads", "vocab_size")
_READ = {
    *_SIZES, "norm_eps", "rope_theta", "max_position_embeddings", "max_seq_len", "sliding_window", "tied_embeddings",
    "yarn", "llama_4_scaling", "vision_encoder", "quantization",
}  # fmt: skip
# Fields of which one value is what mezzo computes; another one is refused.
_FIXED = {"model_type": "transformer", "activation": "silu", "causal": True}
_WITHOUT_EFFECT = {"max_batch_size", "dtype"}
_VISION_SIZES = (
    "hidden_size", "num_channels", "image_size", "patch_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads",
)  # fmt: skip
_VISION_READ = {
    *_VISION_SIZES, "max_image_size", "rope_theta", "spatial_merge_size", "image_token_id", "adapter_bias",
    "mm_projector_id", "add_pre_mm_projector_layer_norm",
}  # fmt: skip
# Which tokens stand between images' rows is the tokenizer's to know.
_VISION_WITHOUT_EFFECT = {"image_break_token_id", "image_end_token_id"}
_PATCH_MERGE = "patch_merge"


def config_from_params(raw: dict[str, Any]) -> ModelConfig:
    """Translate a `params.json`. Raises: UnsupportedCheckpoint naming what is not supported or not there."""
    _refuse_unknown(raw, _READ | _FIXED.keys() | _WITHOUT_EFFECT, "")
    for key, value in _FIXED.items():
        if raw.get(key) not in (None, value):
            raise UnsupportedCheckpoint(
                f"params.json: {key} {raw[key]!r} is not supported; supported is {value!r}"
            )
    try:
        return ModelConfig(
            **{name: int(raw[name]) for name in _SIZES},
            norm_eps=float(raw["norm_eps"]),
            max_seq_len=int(raw.get("max_position_embeddings") or raw.get("max_seq_len") or 32768),
            sliding_window=_sliding_window(raw.get("sliding_window")),
            tied_embeddings=bool(raw.get("tied_embeddings")),
            rope=_rope(raw),
            vision=_vision(raw),
            quantization=quantization_from_params(raw.get("quantization")),
        )
    except KeyError as error:
        raise UnsupportedCheckpoint(f"params.json lacks {error.args[0]}") from None
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UnsupportedCheckpoint(f"params.json has a value that is not valid: {error}") from error


def params_from_config(config: ModelConfig) -> dict[str, Any]:
    """Write a configuration as `params.json` has it. Raises: UnsupportedCheckpoint for what it cannot say."""
    params: dict[str, Any] = {name: getattr(config, name) for name in _SIZES}
    params |= {
        "norm_eps": config.norm_eps,
        "rope_theta": config.rope.theta,
        "max_position_embeddings": config.max_seq_len,
        "sliding_window": config.sliding_window,
        "tied_embeddings": config.tied_embeddings,
    }
    return params | _rope_params(config.rope) | _vision_params(config)


def _refuse_unknown(raw: dict[str, Any], understood: set[str], block: str) -> None:
    if not isinstance(raw, dict):
        raise UnsupportedCheckpoint(f"params.json: {block.rstrip('.')} holds no JSON object")
    # Published files name features that they do not use, with null.
    if unknown := sorted(
        key for key in raw if key not in understood and raw[key] not in (None, False, {}, [])
    ):
        raise UnsupportedCheckpoint(f"params.json: {block}{unknown[0]} is not supported")


def _sliding_window(given: Any) -> int | None:
    """A number, also as text, or a list with the number of each layer in turn."""
    if isinstance(given, list):
        if len(set(given)) > 1:
            raise UnsupportedCheckpoint(f"params.json: sliding_window {given} differs between layers")
        given = given[0] if given else None
    return None if given is None else int(given)


def _rope(raw: dict[str, Any]) -> RopeConfig:
    yarn, scaling = raw.get("yarn"), raw.get("llama_4_scaling")
    query_scale: dict[str, Any] = {}
    if scaling:
        _refuse_unknown(scaling, {"beta", "original_max_position_embeddings"}, "llama_4_scaling.")
        query_scale = {
            "query_scale_beta": float(scaling["beta"]),
            "original_max_positions": int(scaling["original_max_position_embeddings"]),
        }
    if not yarn:
        return RopeConfig(theta=float(raw["rope_theta"]), **query_scale)
    known = {"factor", "original_max_position_embeddings", "beta", "alpha", "apply_scale"}
    _refuse_unknown(yarn, known, "yarn.")
    original = int(yarn["original_max_position_embeddings"])
    if query_scale and query_scale.pop("original_max_positions") != original:
        raise UnsupportedCheckpoint(
            "params.json: yarn and llama_4_scaling differ in original_max_position_embeddings"
        )
    return RopeConfig(
        theta=float(raw["rope_theta"]),
        kind="yarn",
        factor=float(yarn["factor"]),
        original_max_positions=original,
        beta_fast=float(yarn["beta"]),
        beta_slow=float(yarn["alpha"]),
        # Without the scale, numerator and denominator of the attention temperature are the same.
        mscale=1.0,
        mscale_all_dim=0.0 if yarn.get("apply_scale", True) else 1.0,
        **query_scale,
    )


def _vision(raw: dict[str, Any]) -> VisionConfig | None:
    encoder = raw.get("vision_encoder")
    if not encoder:
        return None
    _refuse_unknown(encoder, _VISION_READ | _VISION_WITHOUT_EFFECT, "vision_encoder.")
    if encoder.get("mm_projector_id") not in (None, "", _PATCH_MERGE):
        raise UnsupportedCheckpoint(
            f"params.json: vision_encoder.mm_projector_id {encoder['mm_projector_id']!r} is not supported"
        )
    sizes: dict[str, Any] = {name: int(encoder[name]) for name in _VISION_SIZES}
    # The edge that images are scaled down to; `image_size` only says how large a table of angles was made.
    sizes["image_size"] = int(encoder.get("max_image_size") or encoder["image_size"])
    return VisionConfig(
        **sizes,
        rope_theta=float(encoder["rope_theta"]),
        spatial_merge_size=int(encoder.get("spatial_merge_size") or 1),
        image_token_id=int(encoder["image_token_id"]),
        projector_norm=bool(encoder.get("add_pre_mm_projector_layer_norm")),
        projector_norm_eps=float(raw["norm_eps"]),
        patch_merger=encoder.get("mm_projector_id") == _PATCH_MERGE,
        projector_bias=bool(encoder.get("adapter_bias", True)),
    )


def _rope_params(rope: RopeConfig) -> dict[str, Any]:
    params: dict[str, Any] = {}
    if rope.query_scale_beta is not None:
        params["llama_4_scaling"] = {
            "beta": rope.query_scale_beta,
            "original_max_position_embeddings": rope.original_max_positions,
        }
    if rope.kind == "default":
        return params
    if rope.kind != "yarn" or not rope.truncate or rope.attention_factor not in (None, 1.0):
        raise UnsupportedCheckpoint(f"params.json cannot say what this rotary embedding is: {rope}")
    both = bool(rope.mscale and rope.mscale_all_dim)
    if both and rope.mscale != rope.mscale_all_dim:
        raise UnsupportedCheckpoint(f"params.json cannot say what this rotary embedding is: {rope}")
    params["yarn"] = {
        "factor": rope.factor,
        "original_max_position_embeddings": rope.original_max_positions,
        "beta": rope.beta_fast,
        "alpha": rope.beta_slow,
        "apply_scale": not both and rope.attention_factor is None,
    }
    return params


def _vision_params(config: ModelConfig) -> dict[str, Any]:
    vision = config.vision
    if vision is None:
        return {}
    if (vision.hidden_act, vision.projector_act) != ("silu", "gelu"):
        raise UnsupportedCheckpoint(
            "params.json cannot say which activations are used: "
            f"{vision.hidden_act} in the vision encoder, {vision.projector_act} in the projector"
        )
    if (vision.image_mean, vision.image_std) != (CLIP_MEAN, CLIP_STD):
        raise UnsupportedCheckpoint(
            "params.json cannot say that pixels are normalised in another way than CLIP's"
        )
    if vision.projector_norm and vision.projector_norm_eps != config.norm_eps:
        raise UnsupportedCheckpoint("params.json cannot say that the projector has another norm_eps")
    encoder: dict[str, Any] = {name: getattr(vision, name) for name in _VISION_SIZES}
    encoder |= {
        "max_image_size": vision.image_size,
        "rope_theta": vision.rope_theta,
        "spatial_merge_size": vision.spatial_merge_size,
        "image_token_id": vision.image_token_id,
        "adapter_bias": vision.projector_bias,
        "add_pre_mm_projector_layer_norm": vision.projector_norm,
        "mm_projector_id": _PATCH_MERGE if vision.patch_merger else "",
    }
    return {"vision_encoder": encoder}
