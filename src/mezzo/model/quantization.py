"""In which numbers of eight bits a checkpoint's matrices are stored, read from its configuration.

Two makers' words for one thing, `quantization_config` of config.json and `quantization` of params.json. Whatever is
not understood is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mezzo.model.errors import UnsupportedCheckpoint

# Of a config.json, these say nothing of stored weights: how activations are rounded on the way through a matrix
# (mezzo does not round them), and which modules kept their numbers (their dtype says so).
_HF_WITHOUT_EFFECT = {
    "activation_scheme",
    "modules_to_not_convert",
    "ignored_layers",
    "dequantize",
    "kv_cache_scheme",
}
_HF_UNDERSTOOD = _HF_WITHOUT_EFFECT | {"quant_method", "weight_block_size", "fmt", "scale_fmt"}


@dataclass(frozen=True, kw_only=True)
class Fp8Weights:
    """Matrices in FP8 E4M3 (arXiv 2209.05433) with scales beside them: a weight is its number times its scale.

    block_size   rows and columns that share a scale; None where the whole tensor has one
    """

    block_size: tuple[int, int] | None = None


def quantization_from_hf(raw: dict[str, Any] | None) -> Fp8Weights | None:
    """Read the `quantization_config` of a config.json, None where there is none. Raises: UnsupportedCheckpoint."""
    if not raw:
        return None
    if raw.get("quant_method") != "fp8":
        raise UnsupportedCheckpoint(
            f"quantization_config: quant_method {raw.get('quant_method')!r} is not supported; supported is 'fp8'"
        )
    if unknown := sorted(key for key in raw if key not in _HF_UNDERSTOOD and raw[key]):
        raise UnsupportedCheckpoint(f"quantization_config: {unknown[0]!r} is not supported")
    for key, supported in (("fmt", "e4m3"), ("scale_fmt", "float")):
        if raw.get(key) not in (None, supported):
            raise UnsupportedCheckpoint(
                f"quantization_config: {key} {raw[key]!r} is not supported; supported is {supported!r}"
            )
    block_size = raw.get("weight_block_size")
    if block_size is None:
        return Fp8Weights()
    if (
        not isinstance(block_size, list | tuple)
        or len(block_size) != 2
        or any(type(size) is not int or size < 1 for size in block_size)
    ):
        raise UnsupportedCheckpoint(f"quantization_config: weight_block_size {block_size!r} is not two sizes")
    return Fp8Weights(block_size=(block_size[0], block_size[1]))


def quantization_from_params(raw: dict[str, Any] | None) -> Fp8Weights | None:
    """Read the `quantization` of a params.json, None where there is none. Raises: UnsupportedCheckpoint."""
    if not raw:
        return None
    if raw.get("qformat_weight") != "fp8_e4m3":
        named = raw.get("qformat_weight") or raw.get("quant_method")
        raise UnsupportedCheckpoint(f"quantization: {named!r} is not supported; supported is 'fp8_e4m3'")
    if raw.get("qscheme_act") not in (None, "TENSOR", "NO_SCALES"):
        raise UnsupportedCheckpoint(f"quantization: qscheme_act {raw['qscheme_act']!r} is not supported")
    if unknown := sorted(key for key in raw if key not in ("qformat_weight", "qscheme_act") and raw[key]):
        raise UnsupportedCheckpoint(f"quantization: {unknown[0]!r} is not supported")
    return Fp8Weights()
