"""The shape of a network, read from a checkpoint's configuration.

Field names are those of Mistral's own `params.json`, so that weights, papers and code can be laid side by side;
`from_hf` translates the `config.json` of the Hugging Face layout. Whatever is in a configuration and not
understood here is refused by name: a model that runs with a silently ignored setting gives wrong answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mezzo.model.errors import UnsupportedCheckpoint, check_number, check_size
from mezzo.model.hf_defaults import complete, complete_text, is_multimodal
from mezzo.model.quantization import Fp8Weights, quantization_from_hf
from mezzo.model.vision_config import VisionConfig, read_image_processor, vision_from_hf
from mezzo.model.weight_files import weight_layout

__all__ = ["SUPPORTED_MODEL_TYPES", "ModelConfig", "RopeConfig", "UnsupportedCheckpoint", "VisionConfig"]

SUPPORTED_MODEL_TYPES = ("llama", "mistral", "ministral3", "mistral3", "llava")
_TEXT_TYPES = {"mistral3": ("mistral", "ministral3"), "llava": ("mistral", "ministral3", "llama")}


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding and its extensions to longer contexts.

    kind                 `default` (arXiv 2104.09864), `linear` (positions divided by `factor`), or
                         `yarn` (arXiv 2309.00071)
    original_max_positions   context length of pre-training, for YaRN and for the query scale
    beta_fast, beta_slow     rotations over the original context at which YaRN stops and starts to interpolate
    mscale, mscale_all_dim   DeepSeek's variant of YaRN's attention temperature; both or neither
    attention_factor         overrides the computed temperature
    truncate             round YaRN's correction range to whole dimensions
    query_scale_beta     Ministral 3: queries at position p are scaled by 1 + beta * ln(1 + floor(p / original))
    """

    theta: float = 10000.0
    kind: Literal["default", "linear", "yarn"] = "default"
    factor: float = 1.0
    original_max_positions: int | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool = True
    query_scale_beta: float | None = None

    def __post_init__(self) -> None:
        for name in ("theta", "factor", "beta_fast", "beta_slow"):
            check_number(f"rope {name}", getattr(self, name), above=0)
        for name in ("mscale", "mscale_all_dim", "attention_factor", "query_scale_beta"):
            if (value := getattr(self, name)) is not None:
                check_number(f"rope {name}", value)
        if self.original_max_positions is not None:
            check_size("rope original_max_positions", self.original_max_positions)
        if self.kind == "yarn" and self.theta == 1:
            raise UnsupportedCheckpoint("rope theta must not be 1 for yarn")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Mistral-family decoder, and the vision encoder that stands before it in a multimodal model.

    dim           width of the residual stream            hidden_dim    inner width of the feed-forward
    n_heads       query heads                             n_kv_heads    key and value heads (a divisor of n_heads)
    head_dim      width of a head, not always dim / n_heads
    max_seq_len   positions the checkpoint was made for   sliding_window  keys a query sees at most, itself included
    quantization  how the checkpoint stores matrices that are not in 16 or 32 bits; the network has no trace of it
    """

    dim: int
    n_layers: int
    head_dim: int
    hidden_dim: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    norm_eps: float = 1e-5
    max_seq_len: int = 32768
    sliding_window: int | None = None
    tied_embeddings: bool = False
    rope: RopeConfig = field(default_factory=RopeConfig)
    vision: VisionConfig | None = None
    quantization: Fp8Weights | None = None

    def __post_init__(self) -> None:
        for name in (
            "dim",
            "n_layers",
            "head_dim",
            "hidden_dim",
            "n_heads",
            "n_kv_heads",
            "vocab_size",
            "max_seq_len",
        ):
            check_size(name, getattr(self, name))
        check_number("norm_eps", self.norm_eps, at_least=0)
        if self.n_heads % self.n_kv_heads:
            raise UnsupportedCheckpoint(
                f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}"
            )
        if self.sliding_window is not None:
            check_size("sliding_window", self.sliding_window)
        if self.head_dim % 2:
            raise UnsupportedCheckpoint(f"rotary embedding needs an even head_dim, not {self.head_dim}")
        if self.vision is not None and not 0 <= self.vision.image_token_id < self.vocab_size:
            raise UnsupportedCheckpoint(
                f"image_token_id {self.vision.image_token_id} is not in the vocabulary of {self.vocab_size}"
            )

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that one token adds to the KV cache, over all layers."""
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim

    @property
    def flops_per_token(self) -> int:
        """Operations of one token in the matrices of all layers, a multiply-add being two; attention not counted."""
        attention = 2 * (self.n_heads + self.n_kv_heads) * self.head_dim * self.dim
        return 2 * self.n_layers * (attention + 3 * self.dim * self.hidden_dim)

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Read the configuration of a checkpoint folder, in the layout that its weights are in.

        That is `config.json`, with the image processor's settings beside it for a multimodal model, or Mistral's own
        `params.json` where there is no config.json or the weights are in Mistral's layout alone.
        Raises: UnsupportedCheckpoint, also for a missing or broken file.
        """
        from mezzo.model.params_json import config_from_params  # noqa: PLC0415 - makes what is defined here

        params, config = folder / "params.json", folder / "config.json"
        if params.is_file() and (not config.is_file() or weight_layout(folder) == "mistral"):
            return config_from_params(_read_object(params))
        raw = _read_object(config)
        return cls.from_hf(raw, read_image_processor(folder) if is_multimodal(raw.get("model_type")) else {})

    @classmethod
    def from_hf(cls, raw: dict[str, Any], processor: dict[str, Any] | None = None) -> ModelConfig:
        """Translate a Hugging Face `config.json` and, for a multimodal model, its image processor's settings.

        Raises: UnsupportedCheckpoint naming what is not supported.
        """
        model_type = raw.get("model_type")
        if model_type not in SUPPORTED_MODEL_TYPES:
            raise UnsupportedCheckpoint(_not_supported("model type", model_type, SUPPORTED_MODEL_TYPES))
        try:
            if is_multimodal(model_type):
                return _multimodal_from_hf(complete(raw), processor or {})
            return _text_from_hf(complete_text(raw))
        except KeyError as error:
            raise UnsupportedCheckpoint(f"config.json lacks {error.args[0]}") from None
        except (TypeError, ValueError, OverflowError, ZeroDivisionError, AttributeError) as error:
            raise UnsupportedCheckpoint(f"config.json has a value that is not valid: {error}") from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UnsupportedCheckpoint(f"{path.parent} has no {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UnsupportedCheckpoint(f"{path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise UnsupportedCheckpoint(f"{path} holds no JSON object")
    return raw


def _not_supported(what: str, given: object, supported: tuple[str, ...]) -> str:
    return f"{what} {given!r} is not supported; supported are {', '.join(supported)}"


def _multimodal_from_hf(raw: dict[str, Any], processor: dict[str, Any]) -> ModelConfig:
    """Translate a completed configuration of several parts."""
    text: dict[str, Any] = raw["text_config"]
    text_types = _TEXT_TYPES[raw["model_type"]]
    if text["model_type"] not in text_types:
        raise UnsupportedCheckpoint(_not_supported("text_config: model type", text["model_type"], text_types))
    # mistral3 never looks into its text_config for this; llava takes either's word for it. A head that the weights
    # hold and that differs from the embeddings overrules both (`mezzo.model.checkpoint`).
    tied = raw["tie_word_embeddings"] or (raw["model_type"] == "llava" and text.get("tie_word_embeddings"))
    config = _text_from_hf(text | {"tie_word_embeddings": bool(tied)})
    quantization = quantization_from_hf(raw.get("quantization_config")) or config.quantization
    return replace(config, vision=vision_from_hf(raw, processor), quantization=quantization)


def _text_from_hf(raw: dict[str, Any]) -> ModelConfig:
    _check_text(raw)
    n_heads = int(raw["num_attention_heads"])
    dim = int(raw["hidden_size"])
    return ModelConfig(
        dim=dim,
        n_layers=int(raw["num_hidden_layers"]),
        head_dim=int(raw.get("head_dim") or dim // n_heads),
        hidden_dim=int(raw["intermediate_size"]),
        n_heads=n_heads,
        n_kv_heads=int(raw.get("num_key_value_heads") or n_heads),
        vocab_size=int(raw["vocab_size"]),
        norm_eps=float(raw["rms_norm_eps"]),
        max_seq_len=int(raw["max_position_embeddings"]),
        sliding_window=raw.get("sliding_window"),
        tied_embeddings=bool(raw.get("tie_word_embeddings", False)),
        rope=_rope_from_hf(raw),
        quantization=quantization_from_hf(raw.get("quantization_config")),
    )


def _check_text(raw: dict[str, Any]) -> None:
    if raw.get("hidden_act", "silu") != "silu":
        raise UnsupportedCheckpoint(f"hidden_act {raw['hidden_act']!r} is not supported; supported is 'silu'")
    for name in ("attention_bias", "mlp_bias"):
        if raw.get(name):
            raise UnsupportedCheckpoint(f"{name} is not supported")
    if raw.get("partial_rotary_factor") not in (None, 1.0):
        raise UnsupportedCheckpoint("partial_rotary_factor is not supported")
    kinds = set(raw.get("layer_types") or ())
    if "sliding_attention" in kinds and len(kinds) > 1:
        raise UnsupportedCheckpoint("layer_types: layers of different attention kinds are not supported")


_ROPE_KEYS = {
    "rope_theta", "rope_type", "type", "factor", "original_max_position_embeddings", "max_position_embeddings",
    "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate", "llama_4_scaling_beta",
}  # fmt: skip


def _rope_from_hf(raw: dict[str, Any]) -> RopeConfig:
    """Read either spelling: `rope_parameters` (new) or `rope_theta` and `rope_scaling` (old)."""
    given: dict[str, Any] = {**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})}
    if unknown := sorted(set(given) - _ROPE_KEYS):
        raise UnsupportedCheckpoint(f"rope parameter {unknown[0]!r} is not supported")
    kind: Any = given.get("rope_type") or given.get("type") or "default"
    if kind not in ("default", "linear", "yarn"):
        raise UnsupportedCheckpoint(
            f"rope type {kind!r} is not supported; supported are default, linear, yarn"
        )
    original = given.get("original_max_position_embeddings")
    factor = given.get("factor")
    if kind == "yarn":
        original = original or raw["max_position_embeddings"]
        factor = factor or raw["max_position_embeddings"] / original
    elif kind == "linear" and factor is None:
        raise UnsupportedCheckpoint("rope type 'linear' needs a factor")
    query_scale_beta = given.get("llama_4_scaling_beta") if raw.get("model_type") == "ministral3" else None
    if query_scale_beta is not None and original is None:
        raise UnsupportedCheckpoint("llama_4_scaling_beta needs original_max_position_embeddings")
    return RopeConfig(
        theta=float(given.get("rope_theta") or raw.get("rope_theta") or 10000.0),
        kind=kind,
        factor=float(factor or 1.0),
        original_max_positions=None if original is None else int(original),
        beta_fast=float(given.get("beta_fast") or 32.0),
        beta_slow=float(given.get("beta_slow") or 1.0),
        mscale=given.get("mscale"),
        mscale_all_dim=given.get("mscale_all_dim"),
        attention_factor=given.get("attention_factor"),
        truncate=bool(given.get("truncate", True)),
        query_scale_beta=query_scale_beta,
    )
