"""The checkpoint layout: configuration, names, row order; anything not understood is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mezzo.weights import WeightsError
from mezzo.weights.gguf_file import GgufFile
from mezzo.weights.llama_layout import llama_config, map_tensors, split_halves


def test_split_halves_undoes_the_interleaving_of_each_head() -> None:
    # One column, two heads of head_dim 6; stored 0 3 1 4 2 5 is the first head's rows 0 1 2 3 4 5.
    stored = np.array([0, 3, 1, 4, 2, 5, 10, 13, 11, 14, 12, 15], np.float32)[:, None]
    assert split_halves(stored, 2).ravel().tolist() == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]


def test_config_has_the_values_of_the_metadata(make_gguf: Callable[..., Path]) -> None:
    config = llama_config(GgufFile(make_gguf(head_dim=32, metadata={"llama.rope.freq_base": 500000.0})))
    assert config == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 262,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "max_position_embeddings": 128,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "dtype": "float32",
        "torch_dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }


def test_head_size_and_theta_have_the_format_s_defaults(make_gguf: Callable[..., Path]) -> None:
    absent = dict.fromkeys(
        [
            *("llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count"),
            *("llama.rope.freq_base", "llama.vocab_size"),
        ]
    )
    config = llama_config(GgufFile(make_gguf(metadata=absent)))
    assert (config["head_dim"], config["rope_theta"], config["vocab_size"]) == (16, 10000.0, 262)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"llama.rope.scaling.type": "yarn"}, r"llama\.rope\.scaling\.type = yarn"),
        ({"llama.rope.scaling.factor": 4.0}, r"llama\.rope\.scaling\.factor"),
        ({"llama.expert_count": 8}, r"llama\.expert_count = 8"),
        ({"llama.attention.sliding_window": 64}, r"llama\.attention\.sliding_window = 64"),
        ({"llama.rope.dimension_count": 8}, r"llama\.rope\.dimension_count = 8"),
        ({"llama.attention.value_length": 8}, r"llama\.attention\.value_length = 8"),
        ({"llama.vocab_size": 300}, r"llama\.vocab_size = 300"),
        ({"llama.attention.head_count": None}, r"lacks the metadata llama\.attention\.head_count"),
        ({"llama.attention.head_count_kv": [2, 1]}, r"llama\.attention\.head_count_kv = \[2, 1\]"),
        ({"llama.block_count": 0}, r"num_hidden_layers = 0"),
        ({"tokenizer.ggml.eos_token_id": 262}, r"tokenizer\.ggml\.eos_token_id = 262"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, r"layer_norm_rms_epsilon = nan"),
    ],
)
def test_metadata_that_is_not_understood_is_refused_by_name(
    make_gguf: Callable[..., Path], metadata: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        llama_config(GgufFile(make_gguf(metadata=metadata)))


def test_metadata_without_effect_is_accepted(make_gguf: Callable[..., Path]) -> None:
    harmless = {"llama.rope.scaling.type": "none", "llama.expert_count": 0}
    assert llama_config(GgufFile(make_gguf(metadata=harmless)))["hidden_size"] == 64


def test_another_architecture_is_refused_by_name(make_gguf: Callable[..., Path]) -> None:
    with pytest.raises(WeightsError, match="architecture qwen2; only llama is supported"):
        llama_config(GgufFile(make_gguf(architecture="qwen2")))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"blk.1.attn_v.weight": None}, r"lacks the tensor blk\.1\.attn_v\.weight"),
        ({"output_norm.weight": None}, r"lacks the tensor output_norm\.weight"),
        ({"token_embd.weight": None}, r"lacks the tensor token_embd\.weight"),
        ({"blk.0.attn_q.bias": np.ones(64, np.float32)}, r"no place for: blk\.0\.attn_q\.bias"),
        ({"rope_freqs.weight": np.ones(8, np.float32)}, r"no place for: rope_freqs\.weight"),
        (
            {"blk.0.attn_q.weight": np.ones((32, 64), np.float32)},
            r"blk\.0\.attn_q\.weight .*\(32, 64\).*\(64, 64\)",
        ),
    ],
)
def test_tensors_missing_left_over_or_of_another_shape_are_refused(
    make_gguf: Callable[..., Path], tensors: dict[str, np.ndarray | None], message: str
) -> None:
    file = GgufFile(make_gguf(tensors=tensors))
    with pytest.raises(WeightsError, match=message):
        map_tensors(file, llama_config(file))


def test_the_output_matrix_of_an_untied_model_is_mapped(make_gguf: Callable[..., Path]) -> None:
    file = GgufFile(make_gguf(tied=False))
    config = llama_config(file)
    names = [tensor.name for tensor in map_tensors(file, config)]
    assert config["tie_word_embeddings"] is False
    assert names.count("lm_head.weight") == 1
    assert len(names) == len(set(names)) == 3 + 2 * 9
