"""What the Hugging Face classes put where a `config.json` is silent.

A configuration of several parts may leave out, in its `text_config` and `vision_config`, whatever equals the default
of that part's class; a part that is left out as a whole has defaults of its own.
A configuration of one part likewise, in all that is not the model's size.
Source: the configuration classes of transformers 5. Checked by: tests/model/test_vision_config.py.
"""

from __future__ import annotations

from typing import Any

from mezzo.model.errors import UnsupportedCheckpoint

_MISTRAL: dict[str, Any] = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
}  # fmt: skip
_MINISTRAL3: dict[str, Any] = {
    "vocab_size": 131072, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 34,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-5, "sliding_window": None,
}  # fmt: skip
_LLAMA: dict[str, Any] = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
}  # fmt: skip
_NOT_TELLING = (
    "num_key_value_heads", "head_dim", "rms_norm_eps", "max_position_embeddings", "sliding_window",
)  # fmt: skip
_TEXT = {"mistral": _MISTRAL, "ministral3": _MINISTRAL3, "llama": _LLAMA}
_MINISTRAL3_ROPE: dict[str, Any] = {
    "rope_type": "yarn", "rope_theta": 1000000.0, "factor": 16.0, "original_max_position_embeddings": 16384,
    "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
}  # fmt: skip
_PIXTRAL: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "num_channels": 3, "image_size": 1024, "patch_size": 16, "hidden_act": "gelu",
}  # fmt: skip
# Of a part that is left out as a whole.
_MISTRAL3_TEXT = _MISTRAL | {
    "model_type": "mistral", "vocab_size": 131072, "hidden_size": 5120, "intermediate_size": 32768,
    "num_hidden_layers": 40, "head_dim": 128, "rms_norm_eps": 1e-5, "sliding_window": None,
    "rope_theta": 1000000000.0,
}  # fmt: skip
_MISTRAL3_VISION = _PIXTRAL | {"model_type": "pixtral", "image_size": 1540, "patch_size": 14}
_WHOLE_PART: dict[tuple[str, str], dict[str, Any]] = {
    ("mistral3", "text_config"): _MISTRAL3_TEXT,
    ("mistral3", "vision_config"): _MISTRAL3_VISION,
    ("llava", "text_config"): {"model_type": "llama"},
    ("llava", "vision_config"): {"model_type": "clip_vision_model"},
}
_TOP: dict[str, dict[str, Any]] = {
    "mistral3": {
        "image_token_index": 10, "projector_hidden_act": "gelu", "vision_feature_layer": -1,
        "multimodal_projector_bias": False, "spatial_merge_size": 2, "tie_word_embeddings": True,
    },
    "llava": {
        "image_token_index": 32000, "projector_hidden_act": "gelu", "vision_feature_layer": -2,
        "multimodal_projector_bias": True, "vision_feature_select_strategy": "default", "tie_word_embeddings": False,
    },
}  # fmt: skip


def is_multimodal(model_type: object) -> bool:
    """Tell whether a configuration of this type has a `text_config` and a `vision_config`."""
    return isinstance(model_type, str) and model_type in _TOP


def complete(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a multimodal configuration with everything it left out, its parts included.

    Parts of a type that is not known are passed on as they are, for the caller to refuse.
    Raises: UnsupportedCheckpoint for a part that is no JSON object.
    """
    model_type = raw["model_type"]
    text = _part(raw, "text_config")
    text = _with_rope(_TEXT.get(text["model_type"], {}) | text)
    vision = _part(raw, "vision_config")
    if vision["model_type"] == "pixtral":
        vision = _PIXTRAL | vision
    return _TOP[model_type] | raw | {"text_config": text, "vision_config": vision}


def complete_text(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a language model with what its class puts in place of what it left out.

    The sizes that tell one model from another are not made up: a file without them is no model's.
    """
    defaults = _TEXT.get(raw["model_type"], {})
    return _with_rope({name: defaults[name] for name in _NOT_TELLING if name in defaults} | raw)


def _with_rope(text: dict[str, Any]) -> dict[str, Any]:
    if text["model_type"] == "ministral3" and not (text.get("rope_parameters") or text.get("rope_scaling")):
        return text | {"rope_parameters": _MINISTRAL3_ROPE}
    return text


def _part(raw: dict[str, Any], name: str) -> dict[str, Any]:
    whole = _WHOLE_PART[raw["model_type"], name]
    part = raw.get(name)
    if part is None:
        return dict(whole)
    if not isinstance(part, dict):
        raise UnsupportedCheckpoint(f"{name} holds no JSON object")
    return {"model_type": whole["model_type"]} | part
