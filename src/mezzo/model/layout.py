"""Which tensor of a checkpoint is which part of which parameter, in each layout that checkpoints come in.

One table says it, line by line, and is read both ways: loading goes from a stored name to a parameter, exporting from
a parameter to stored names. A layout is the table with that maker's names in it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mezzo.model.config import ModelConfig

Part = Literal["whole", "q", "k", "v", "gate", "up"]


@dataclass(frozen=True)
class Rule:
    """One line of a table: the stored tensor `stored` is `part` of the rows of `parameter`; `*` is a layer's number."""

    stored: str
    parameter: str
    part: Part = "whole"


@dataclass(frozen=True)
class Place:
    """Where a stored tensor belongs: rows from `start` to `stop` of a parameter, all of it where `stop` is None.

    num_interleaved_heads   heads whose rows the file has in another order, 0 for none: rotary pairs side by side
                            (2i, 2i + 1), where mezzo has them half a head apart (i, i + head_dim / 2)
    """

    parameter: str
    start: int = 0
    stop: int | None = None
    num_interleaved_heads: int = 0

    def rows_of(self, parameter: Tensor) -> Tensor:
        """Return the view of the parameter's rows, in mezzo's order."""
        return parameter[self.start : self.stop]


@dataclass(frozen=True)
class Layout:
    """A maker's names.

    weight_scale       what stands for `weight` in the name of an FP8 weight's scale
    activation_scale   likewise, of the scale that its input would be rounded with
    interleaved        whether queries' and keys' rows have rotary pairs side by side
    without_effect     names of tensors that the model has no use for: constants that it computes itself, scales of
                       caches that it does not have
    """

    name: Literal["hf", "mistral"]
    rules: tuple[Rule, ...]
    weight_scale: str
    activation_scale: str
    interleaved: bool
    without_effect: re.Pattern[str]

    def places(self, config: ModelConfig, parameters: Container[str]) -> dict[str, Place]:
        """Return stored name -> place for all that a network with these parameters has, in the table's order."""
        return {
            stored: place
            for rule in self.rules
            for stored, place in self._expanded(rule, config)
            if place.parameter in parameters
        }

    def _expanded(self, rule: Rule, config: ModelConfig) -> Iterable[tuple[str, Place]]:
        shape = _shape_of(rule.parameter, config)
        start, stop = shape.rows(rule.part)
        num_heads = (
            {"q": shape.num_heads, "k": shape.num_kv_heads}.get(rule.part, 0) if self.interleaved else 0
        )
        for layer in range(shape.num_layers) if "*" in rule.parameter else (0,):
            number = str(layer)
            yield (
                rule.stored.replace("*", number),
                Place(rule.parameter.replace("*", number), start, stop, num_heads),
            )


@dataclass(frozen=True)
class _Shape:
    """Of the decoder or of the vision encoder, what decides about rows of fused parameters."""

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_dim: int

    def rows(self, part: Part) -> tuple[int, int | None]:
        query_rows, kv_rows = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        ranges: dict[Part, tuple[int, int | None]] = {
            "whole": (0, None),
            "q": (0, query_rows),
            "k": (query_rows, query_rows + kv_rows),
            "v": (query_rows + kv_rows, query_rows + 2 * kv_rows),
            "gate": (0, self.hidden_dim),
            "up": (self.hidden_dim, 2 * self.hidden_dim),
        }
        return ranges[part]


def _shape_of(parameter: str, config: ModelConfig) -> _Shape:
    if parameter.startswith("decoder."):
        return _Shape(config.n_layers, config.n_heads, config.n_kv_heads, config.head_dim, config.hidden_dim)
    vision = config.vision
    if vision is None:
        return _Shape(0, 0, 0, 0, 0)
    heads = vision.num_attention_heads
    return _Shape(vision.num_hidden_layers, heads, heads, vision.head_dim, vision.intermediate_size)


def _hf_rules(decoder: str, head: str, tower: str, projector: str) -> tuple[Rule, ...]:
    """The Hugging Face layout, with the prefixes that its versions put before the parts of a model."""
    layer, vision_layer = f"{decoder}layers.*.", f"{tower}transformer.layers.*."
    return (
        Rule(f"{decoder}embed_tokens.weight", "decoder.tok_embeddings.weight"),
        Rule(f"{layer}input_layernorm.weight", "decoder.layers.*.attention_norm.weight"),
        Rule(f"{layer}self_attn.q_proj.weight", "decoder.layers.*.attention.wqkv.weight", "q"),
        Rule(f"{layer}self_attn.k_proj.weight", "decoder.layers.*.attention.wqkv.weight", "k"),
        Rule(f"{layer}self_attn.v_proj.weight", "decoder.layers.*.attention.wqkv.weight", "v"),
        Rule(f"{layer}self_attn.o_proj.weight", "decoder.layers.*.attention.wo.weight"),
        Rule(f"{layer}post_attention_layernorm.weight", "decoder.layers.*.ffn_norm.weight"),
        Rule(f"{layer}mlp.gate_proj.weight", "decoder.layers.*.feed_forward.w13.weight", "gate"),
        Rule(f"{layer}mlp.up_proj.weight", "decoder.layers.*.feed_forward.w13.weight", "up"),
        Rule(f"{layer}mlp.down_proj.weight", "decoder.layers.*.feed_forward.w2.weight"),
        Rule(f"{decoder}norm.weight", "decoder.norm.weight"),
        Rule(f"{head}lm_head.weight", "decoder.output.weight"),
        Rule(f"{tower}patch_conv.weight", "vision.encoder.patch_conv.weight"),
        Rule(f"{tower}ln_pre.weight", "vision.encoder.ln_pre.weight"),
        Rule(f"{vision_layer}attention_norm.weight", "vision.encoder.layers.*.attention_norm.weight"),
        Rule(f"{vision_layer}attention.q_proj.weight", "vision.encoder.layers.*.attention.wqkv.weight", "q"),
        Rule(f"{vision_layer}attention.k_proj.weight", "vision.encoder.layers.*.attention.wqkv.weight", "k"),
        Rule(f"{vision_layer}attention.v_proj.weight", "vision.encoder.layers.*.attention.wqkv.weight", "v"),
        Rule(f"{vision_layer}attention.o_proj.weight", "vision.encoder.layers.*.attention.wo.weight"),
        Rule(f"{vision_layer}ffn_norm.weight", "vision.encoder.layers.*.ffn_norm.weight"),
        Rule(
            f"{vision_layer}feed_forward.gate_proj.weight",
            "vision.encoder.layers.*.feed_forward.w13.weight",
            "gate",
        ),
        Rule(
            f"{vision_layer}feed_forward.up_proj.weight",
            "vision.encoder.layers.*.feed_forward.w13.weight",
            "up",
        ),
        Rule(
            f"{vision_layer}feed_forward.down_proj.weight", "vision.encoder.layers.*.feed_forward.w2.weight"
        ),
        Rule(f"{projector}norm.weight", "vision.projector.norm.weight"),
        Rule(f"{projector}patch_merger.merging_layer.weight", "vision.projector.merger.weight"),
        Rule(f"{projector}linear_1.weight", "vision.projector.w_in.weight"),
        Rule(f"{projector}linear_1.bias", "vision.projector.w_in.bias"),
        Rule(f"{projector}linear_2.weight", "vision.projector.w_out.weight"),
        Rule(f"{projector}linear_2.bias", "vision.projector.w_out.bias"),
    )


def _hf(decoder: str, head: str, tower: str, projector: str) -> Layout:
    return Layout(
        name="hf",
        rules=_hf_rules(decoder, head, tower, projector),
        weight_scale="weight_scale_inv",
        activation_scale="activation_scale",
        interleaved=False,
        # Older exporters saved these constants beside the weights.
        without_effect=re.compile(r".*\.(rotary_emb|patch_positional_embedding)\.inv_freq"),
    )


_LAYER, _VISION_LAYER = "layers.*.", "vision_encoder.transformer.layers.*."

HF_TEXT = _hf("model.", "", "model.vision_tower.", "model.multi_modal_projector.")
"""A model of text alone."""
HF_MULTIMODAL = _hf("model.language_model.", "", "model.vision_tower.", "model.multi_modal_projector.")
"""A multimodal model as transformers 5 names it in memory."""
HF_MULTIMODAL_SAVED = _hf(
    "language_model.model.", "language_model.", "vision_tower.", "multi_modal_projector."
)
"""A multimodal model as transformers 4 named it, and as every version still saves it."""
MISTRAL = Layout(
    name="mistral",
    rules=(
        Rule("tok_embeddings.weight", "decoder.tok_embeddings.weight"),
        Rule(f"{_LAYER}attention_norm.weight", "decoder.layers.*.attention_norm.weight"),
        Rule(f"{_LAYER}attention.wq.weight", "decoder.layers.*.attention.wqkv.weight", "q"),
        Rule(f"{_LAYER}attention.wk.weight", "decoder.layers.*.attention.wqkv.weight", "k"),
        Rule(f"{_LAYER}attention.wv.weight", "decoder.layers.*.attention.wqkv.weight", "v"),
        Rule(f"{_LAYER}attention.wo.weight", "decoder.layers.*.attention.wo.weight"),
        Rule(f"{_LAYER}ffn_norm.weight", "decoder.layers.*.ffn_norm.weight"),
        Rule(f"{_LAYER}feed_forward.w1.weight", "decoder.layers.*.feed_forward.w13.weight", "gate"),
        Rule(f"{_LAYER}feed_forward.w3.weight", "decoder.layers.*.feed_forward.w13.weight", "up"),
        Rule(f"{_LAYER}feed_forward.w2.weight", "decoder.layers.*.feed_forward.w2.weight"),
        Rule("norm.weight", "decoder.norm.weight"),
        Rule("output.weight", "decoder.output.weight"),
        Rule("vision_encoder.patch_conv.weight", "vision.encoder.patch_conv.weight"),
        Rule("vision_encoder.ln_pre.weight", "vision.encoder.ln_pre.weight"),
        Rule(f"{_VISION_LAYER}attention_norm.weight", "vision.encoder.layers.*.attention_norm.weight"),
        Rule(f"{_VISION_LAYER}attention.wq.weight", "vision.encoder.layers.*.attention.wqkv.weight", "q"),
        Rule(f"{_VISION_LAYER}attention.wk.weight", "vision.encoder.layers.*.attention.wqkv.weight", "k"),
        Rule(f"{_VISION_LAYER}attention.wv.weight", "vision.encoder.layers.*.attention.wqkv.weight", "v"),
        Rule(f"{_VISION_LAYER}attention.wo.weight", "vision.encoder.layers.*.attention.wo.weight"),
        Rule(f"{_VISION_LAYER}ffn_norm.weight", "vision.encoder.layers.*.ffn_norm.weight"),
        Rule(
            f"{_VISION_LAYER}feed_forward.w1.weight",
            "vision.encoder.layers.*.feed_forward.w13.weight",
            "gate",
        ),
        Rule(
            f"{_VISION_LAYER}feed_forward.w3.weight", "vision.encoder.layers.*.feed_forward.w13.weight", "up"
        ),
        Rule(f"{_VISION_LAYER}feed_forward.w2.weight", "vision.encoder.layers.*.feed_forward.w2.weight"),
        Rule("pre_mm_projector_norm.weight", "vision.projector.norm.weight"),
        Rule("patch_merger.merging_layer.weight", "vision.projector.merger.weight"),
        Rule("vision_language_adapter.w_in.weight", "vision.projector.w_in.weight"),
        Rule("vision_language_adapter.w_in.bias", "vision.projector.w_in.bias"),
        Rule("vision_language_adapter.w_out.weight", "vision.projector.w_out.weight"),
        Rule("vision_language_adapter.w_out.bias", "vision.projector.w_out.bias"),
    ),
    weight_scale="qscale_weight",
    activation_scale="qscale_act",
    interleaved=True,
    # Scales of an FP8 KV cache, which was simulated in training; mezzo's cache is in the model's dtype.
    without_effect=re.compile(r".*\.[kv]_fake_quantizer\.qscale_act"),
)


def hf_layout(stored: Iterable[str]) -> Layout:
    """Return the version of the Hugging Face layout that the names of a checkpoint are in."""
    names = list(stored)
    for layout, prefix in (
        (HF_MULTIMODAL, "model.language_model."),
        (HF_MULTIMODAL_SAVED, "language_model.model."),
    ):
        if any(name.startswith(prefix) for name in names):
            return layout
    return HF_TEXT


def paired_rows(rows: Tensor, num_heads: int) -> Tensor:
    """View rows with rotary pairs half a head apart in the order of a file that has pairs side by side.

    Shapes: rows (num_heads * head_dim, ...) -> (num_heads, head_dim / 2, 2, ...), a view: copying a file's rows into
    it, or out of it, is the whole permutation. With head_dim 6, rows 0 1 2 3 4 5 are seen as 0 3, 1 4, 2 5.
    """
    return rows.view(num_heads, 2, -1, *rows.shape[1:]).transpose(1, 2)
