"""Reading config.json: both spellings of the rotary embedding, and a refusal by name for what is not understood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mezzo.model.config import ModelConfig, RopeConfig, UnsupportedCheckpoint

BASE: dict[str, Any] = {
    "model_type": "mistral",
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 112,
    "vocab_size": 160,
}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}


def config(**changes: Any) -> ModelConfig:
    raw = BASE | changes
    return ModelConfig.from_hf({name: value for name, value in raw.items() if value is not ...})


class TestFields:
    def test_names_of_params_json(self) -> None:
        assert config(
            head_dim=16,
            rms_norm_eps=1e-6,
            max_position_embeddings=1000,
            sliding_window=99,
            tie_word_embeddings=True,
            rope_theta=1e6,
        ) == ModelConfig(
            dim=48,
            n_layers=3,
            head_dim=16,
            hidden_dim=112,
            n_heads=6,
            n_kv_heads=2,
            vocab_size=160,
            norm_eps=1e-6,
            max_seq_len=1000,
            sliding_window=99,
            tied_embeddings=True,
            rope=RopeConfig(theta=1e6),
        )

    def test_what_may_be_left_out(self) -> None:
        made = config(model_type="llama", num_key_value_heads=...)
        assert (made.head_dim, made.n_kv_heads, made.norm_eps, made.max_seq_len) == (8, 6, 1e-6, 2048)
        assert made.sliding_window is None
        assert not made.tied_embeddings
        assert made.rope == RopeConfig()

    @pytest.mark.slow
    @pytest.mark.parametrize("model_type", ["llama", "mistral", "ministral3"])
    def test_what_is_left_out_is_what_the_reference_puts_there(self, model_type: str) -> None:
        from transformers import AutoConfig

        sizes = {
            "vocab_size": 160, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2,
            "num_attention_heads": 8,
        }  # fmt: skip
        whole = AutoConfig.for_model(model_type, **sizes).to_dict()
        assert ModelConfig.from_hf({"model_type": model_type, **sizes}) == ModelConfig.from_hf(whole)

    @pytest.mark.parametrize(
        "field", ["head_dim", "num_key_value_heads", "sliding_window", "rope_scaling", "layer_types"]
    )
    def test_null_is_as_if_left_out(self, field: str) -> None:
        llama = {"model_type": "llama"}  # for mistral, null and nothing differ in the reference too
        assert config(**llama, **{field: None}) == config(**llama, **{field: ...})

    def test_numbers_in_the_cache(self) -> None:
        assert config().kv_values_per_token == 2 * 3 * 2 * 8


class TestRope:
    @pytest.mark.parametrize(
        "changes",
        [
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4}},
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
            {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}},
        ],
        ids=["oldest", "old", "new"],
    )
    def test_spellings(self, changes: dict[str, Any]) -> None:
        assert config(**changes).rope == RopeConfig(theta=5e5, kind="linear", factor=4.0)

    def test_yarn_with_everything(self) -> None:
        given = {
            **YARN, "beta_fast": 16, "beta_slow": 2, "mscale": 0.7, "mscale_all_dim": 1.1,
            "attention_factor": 1.3, "truncate": False, "rope_theta": 100.0,
        }  # fmt: skip
        assert config(rope_parameters=given).rope == RopeConfig(
            theta=100.0, kind="yarn", factor=8.0, original_max_positions=64, beta_fast=16.0, beta_slow=2.0,
            mscale=0.7, mscale_all_dim=1.1, attention_factor=1.3, truncate=False,
        )  # fmt: skip

    def test_yarn_works_out_what_it_is_not_told(self) -> None:
        given = {"rope_type": "yarn", "original_max_position_embeddings": 64}
        assert config(rope_parameters=given, max_position_embeddings=256).rope.factor == 4.0
        given = {"rope_type": "yarn", "factor": 2.0}
        assert config(rope_parameters=given, max_position_embeddings=256).rope.original_max_positions == 256

    def test_the_query_scale_is_ministral_s(self) -> None:
        given = {**YARN, "llama_4_scaling_beta": 0.1}
        assert config(model_type="ministral3", rope_parameters=given).rope.query_scale_beta == 0.1
        assert config(model_type="mistral", rope_parameters=given).rope.query_scale_beta is None


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "mixtral"},
     "model type 'mixtral' is not supported; supported are llama, mistral, ministral3, mistral3, llava"),
    ({"model_type": ...}, "model type None"),
    ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    ({"attention_bias": True}, "attention_bias"),
    ({"mlp_bias": True}, "mlp_bias"),
    ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ({"layer_types": ["sliding_attention", "full_attention", "full_attention"]}, "layer_types"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope type 'dynamic'"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope type 'llama3'"),
    ({"rope_parameters": {**YARN, "surprise": 1}}, "rope parameter 'surprise'"),
    ({"rope_scaling": {"type": "linear"}}, "rope type 'linear' needs a factor"),
    ({"model_type": "ministral3", "rope_parameters": {"rope_type": "default", "llama_4_scaling_beta": 0.1}},
     "llama_4_scaling_beta needs original_max_position_embeddings"),
    ({"num_key_value_heads": 4}, "n_heads 6 is not a multiple of n_kv_heads 4"),
    ({"head_dim": 7}, "even head_dim, not 7"),
    ({"num_hidden_layers": 0}, "n_layers must be at least 1"),
    ({"vocab_size": -1}, "vocab_size must be at least 1"),
    ({"num_attention_heads": 0}, "a value that is not valid"),
    ({"sliding_window": 0}, "sliding_window must be at least 1"),
    ({"hidden_size": "wide"}, "a value that is not valid"),
    ({"hidden_size": None}, "a value that is not valid"),
    *[({name: ...}, f"config.json lacks {name}") for name in BASE if name not in ("model_type", "num_key_value_heads")],
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_what_is_not_understood_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedCheckpoint) as caught:
        config(**changes)
    assert message in str(caught.value)


class TestFromFolder:
    def test_reads_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(BASE))
        assert ModelConfig.from_folder(tmp_path) == config()

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(UnsupportedCheckpoint, match=r"has no config\.json"):
            ModelConfig.from_folder(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"3"])
    def test_a_broken_file(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(
            UnsupportedCheckpoint, match=r"config\.json (cannot be read|holds no JSON object)"
        ):
            ModelConfig.from_folder(tmp_path)
