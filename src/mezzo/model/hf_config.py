"""A `ModelConfig` written as the Hugging Face layout has it: `config.json` and the image processor's settings.

The counterpart of `ModelConfig.from_hf`. The rotary embedding is written in the spelling of transformers 5 and in that
of transformers 4 beside it; both say the same.
"""

from __future__ import annotations

from typing import Any

from mezzo.model.config import ModelConfig, RopeConfig, UnsupportedCheckpoint
from mezzo.model.vision_config import Activation, VisionConfig

_ACTIVATION_NAMES: dict[Activation, str] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
}
_CAUSAL = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "ministral3": "Ministral3ForCausalLM",
}
_MULTIMODAL = {"mistral3": "Mistral3ForConditionalGeneration", "llava": "LlavaForConditionalGeneration"}


def hf_from_config(
    config: ModelConfig, *, dtype: str, family: str | None = None, token_ids: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write `config.json` for weights of `dtype`.

    family      model type of the text half that the weights came with, kept where it says the same thing: llama and
                mistral are one architecture, and tokenizers are chosen by it
    token_ids   `bos_token_id` and the like, which the model has no use for
    Raises: UnsupportedCheckpoint for what no class of the layout computes.
    """
    text = _text(config, family) | (token_ids or {})
    numbers = {"dtype": dtype, "torch_dtype": dtype}
    if config.vision is None:
        return {"architectures": [_CAUSAL[text["model_type"]]]} | text | numbers
    whole = _whole(config, config.vision)
    return (
        {"architectures": [_MULTIMODAL[whole["model_type"]]]}
        | whole
        | {"text_config": text | numbers, "vision_config": _vision(config.vision) | numbers}
        | numbers
    )


def processor_files(vision: VisionConfig) -> dict[str, dict[str, Any]]:
    """Write how images become pixels, and how many tokens stand for them, by the name of the file that says it."""
    pixels = {
        "image_processor_type": "PixtralImageProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(vision.image_mean),
        "image_std": list(vision.image_std),
        "patch_size": {"height": vision.patch_size, "width": vision.patch_size},
        "resample": 3,  # bicubic
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": vision.image_size},
    }
    tokens = {
        "processor_class": "PixtralProcessor",
        "patch_size": vision.patch_size,
        "spatial_merge_size": vision.spatial_merge_size,
    }
    return {"preprocessor_config.json": pixels, "processor_config.json": tokens}


def _text(config: ModelConfig, family: str | None) -> dict[str, Any]:
    if config.rope.query_scale_beta is not None:
        model_type = "ministral3"
    elif family == "llama" and config.sliding_window is None:
        model_type = "llama"
    else:
        model_type = "mistral"
    text: dict[str, Any] = {
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_seq_len,
        "tie_word_embeddings": config.tied_embeddings,
    }
    text |= {"attention_bias": False, "mlp_bias": False} if model_type == "llama" else {}
    text |= {"sliding_window": config.sliding_window} if model_type != "llama" else {}
    return text | _rope(config.rope)


def _rope(rope: RopeConfig) -> dict[str, Any]:
    parameters: dict[str, Any] = {"rope_type": rope.kind, "rope_theta": rope.theta}
    if rope.kind != "default":
        parameters["factor"] = rope.factor
    optional: dict[str, Any] = {
        "original_max_position_embeddings": rope.original_max_positions,
        "llama_4_scaling_beta": rope.query_scale_beta,
    }
    if rope.kind == "yarn":
        optional |= {
            "beta_fast": rope.beta_fast,
            "beta_slow": rope.beta_slow,
            "mscale": rope.mscale,
            "mscale_all_dim": rope.mscale_all_dim,
            "attention_factor": rope.attention_factor,
            "truncate": None if rope.truncate else False,
        }
    parameters |= {name: value for name, value in optional.items() if value is not None}
    written: dict[str, Any] = {"rope_parameters": parameters, "rope_theta": rope.theta}
    if rope.kind != "default":
        scaling = {name: value for name, value in parameters.items() if name != "rope_theta"}
        written["rope_scaling"] = scaling
    return written


def _whole(config: ModelConfig, vision: VisionConfig) -> dict[str, Any]:
    """The parts of a multimodal model's configuration that belong to neither half."""
    if vision.projector_norm != vision.patch_merger or (
        vision.projector_norm and vision.projector_norm_eps != config.norm_eps
    ):
        raise UnsupportedCheckpoint("the Hugging Face layout has no class with such a projector")
    whole: dict[str, Any] = {
        "model_type": "mistral3" if vision.patch_merger else "llava",
        "image_token_index": vision.image_token_id,
        "multimodal_projector_bias": vision.projector_bias,
        "projector_hidden_act": _ACTIVATION_NAMES[vision.projector_act],
        "vision_feature_layer": -1,
        "tie_word_embeddings": config.tied_embeddings,
    }
    if vision.patch_merger:
        return whole | {"spatial_merge_size": vision.spatial_merge_size}
    return whole | {"vision_feature_select_strategy": "full"}


def _vision(vision: VisionConfig) -> dict[str, Any]:
    return {
        "model_type": "pixtral",
        "hidden_size": vision.hidden_size,
        "intermediate_size": vision.intermediate_size,
        "num_hidden_layers": vision.num_hidden_layers,
        "num_attention_heads": vision.num_attention_heads,
        "head_dim": vision.head_dim,
        "num_channels": vision.num_channels,
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "hidden_act": _ACTIVATION_NAMES[vision.hidden_act],
        "rope_theta": vision.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": vision.rope_theta},
    }
