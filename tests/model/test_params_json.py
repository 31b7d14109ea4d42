"""Reading and writing params.json: published files are understood, and a refusal by name for what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mezzo.model.config import ModelConfig, RopeConfig, UnsupportedCheckpoint
from mezzo.model.params_json import config_from_params, params_from_config
from mezzo.model.quantization import Fp8Weights
from tests.model.layouts import PARAMS, VISION_PARAMS

YARN = {
    "original_max_position_embeddings": 16384,
    "factor": 16.0,
    "apply_scale": False,
    "beta": 32.0,
    "alpha": 1.0,
}
SCALING = {"original_max_position_embeddings": 16384, "beta": 0.1}
# As mistralai/Mistral-7B-Instruct-v0.3 publishes it.
MISTRAL_7B: dict[str, Any] = {
    "dim": 4096, "n_layers": 32, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8,
    "norm_eps": 1e-05, "vocab_size": 32768, "rope_theta": 1000000.0,
}  # fmt: skip
# As mistralai/Devstral-2-123B-Instruct-2512 publishes it.
DEVSTRAL_2: dict[str, Any] = {
    "dim": 12288, "n_layers": 88, "head_dim": 128, "hidden_dim": 28672, "n_heads": 96, "n_kv_heads": 8,
    "rope_theta": 1000000.0, "norm_eps": 1e-05, "vocab_size": 131072, "tied_embeddings": False,
    "max_position_embeddings": 262144, "q_lora_rank": None, "qk_rope_head_dim": None, "qk_nope_head_dim": None,
    "kv_lora_rank": None, "v_head_dim": None,
    "quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"},
    "yarn": {
        "original_max_position_embeddings": 4096, "factor": 64, "apply_scale": True, "beta": 4, "alpha": 1,
    },
}  # fmt: skip


class TestPublishedFiles:
    def test_mistral_7b(self) -> None:
        config = config_from_params(MISTRAL_7B)
        assert (config.max_seq_len, config.sliding_window, config.tied_embeddings) == (32768, None, False)
        assert config.rope == RopeConfig(theta=1e6)

    def test_devstral_2(self) -> None:
        config = config_from_params(DEVSTRAL_2)
        assert config.quantization == Fp8Weights()
        assert (config.dim, config.n_heads * config.head_dim, config.max_seq_len) == (12288, 12288, 262144)
        assert config.rope == RopeConfig(
            theta=1e6, kind="yarn", factor=64.0, original_max_positions=4096, beta_fast=4.0, beta_slow=1.0,
            mscale=1.0, mscale_all_dim=0.0,
        )  # fmt: skip

    def test_ministral_3_as_its_config_json_says_it(self) -> None:
        params = PARAMS | {
            "max_position_embeddings": 262144, "rope_theta": 1e6, "tied_embeddings": True, "yarn": YARN,
            "llama_4_scaling": SCALING,
            "vision_encoder": VISION_PARAMS | {"max_image_size": 1540, "image_size": 1540},
        }  # fmt: skip
        rope = {
            "type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1,
        }  # fmt: skip
        text = {
            "model_type": "ministral3", "hidden_size": 32, "num_hidden_layers": 2, "head_dim": 8,
            "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 260,
            "rms_norm_eps": 1e-5, "max_position_embeddings": 262144, "rope_parameters": rope,
        }  # fmt: skip
        vision = {
            "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 3,
            "num_attention_heads": 2, "patch_size": 4, "image_size": 1540, "hidden_act": "silu",
        }  # fmt: skip
        raw = {
            "model_type": "mistral3", "text_config": text, "vision_config": vision, "image_token_index": 257,
            "spatial_merge_size": 2, "tie_word_embeddings": True,
        }  # fmt: skip
        assert config_from_params(params) == ModelConfig.from_hf(raw)

    def test_pixtral_without_a_patch_merger(self) -> None:
        encoder = {
            name: value
            for name, value in VISION_PARAMS.items()
            if name not in ("spatial_merge_size", "adapter_bias", "mm_projector_id", "add_pre_mm_projector_layer_norm")
        }  # fmt: skip
        vision = config_from_params(PARAMS | {"vision_encoder": encoder}).vision
        assert vision is not None
        assert (vision.spatial_merge_size, vision.patch_merger, vision.projector_norm) == (1, False, False)
        assert vision.projector_bias

    @pytest.mark.parametrize(
        ("given", "window"),
        [(None, None), (4096, 4096), ("4096", 4096), ([7, 7], 7), ([None, None], None), ([], None)],
    )
    def test_spellings_of_the_window(self, given: object, window: int | None) -> None:
        assert config_from_params(PARAMS | {"sliding_window": given}).sliding_window == window

    def test_max_seq_len_is_the_older_name(self) -> None:
        params = {name: value for name, value in PARAMS.items() if name != "max_position_embeddings"}
        assert config_from_params(params | {"max_seq_len": 128000}).max_seq_len == 128000
        assert config_from_params(PARAMS | {"max_seq_len": 128000}).max_seq_len == 256


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"moe": {"num_experts": 8}}, "params.json: moe is not supported"),
    ({"q_lora_rank": 1024}, "params.json: q_lora_rank is not supported"),
    ({"lora": {"rank": 64}}, "params.json: lora is not supported"),
    ({"multimodal": {"whisper_model_args": {}}}, "params.json: multimodal is not supported"),
    ({"ada_rms_norm_t_cond": True}, "params.json: ada_rms_norm_t_cond is not supported"),
    ({"surprise": 1}, "params.json: surprise is not supported"),
    ({"use_biases": True}, "params.json: use_biases is not supported"),
    ({"model_type": "mamba"}, "params.json: model_type 'mamba' is not supported; supported is 'transformer'"),
    ({"activation": "gelu"}, "params.json: activation 'gelu' is not supported; supported is 'silu'"),
    ({"causal": False}, "params.json: causal False is not supported"),
    ({"quantization_config": {"quant_method": "compressed-tensors"}}, "params.json: quantization_config is not supp"),
    ({"quantization": {"quant_method": "compressed-tensors"}}, "quantization: 'compressed-tensors' is not supported"),
    ({"quantization": {"qformat_weight": "int8"}}, "quantization: 'int8' is not supported; supported is 'fp8_e4m3'"),
    ({"quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "BLOCK"}}, "qscheme_act 'BLOCK'"),
    ({"quantization": {"qformat_weight": "fp8_e4m3", "groups": 2}}, "quantization: 'groups' is not supported"),
    ({"sliding_window": [None, 32768]}, "sliding_window [None, 32768] differs between layers"),
    ({"yarn": YARN | {"surprise": 1}}, "params.json: yarn.surprise is not supported"),
    ({"llama_4_scaling": SCALING | {"surprise": 1}}, "params.json: llama_4_scaling.surprise is not supported"),
    ({"yarn": YARN, "llama_4_scaling": SCALING | {"original_max_position_embeddings": 1}}, "yarn and llama_4_scaling"),
    ({"yarn": {"factor": 2.0}}, "params.json lacks original_max_position_embeddings"),
    ({"vision_encoder": VISION_PARAMS | {"surprise": 1}}, "params.json: vision_encoder.surprise is not supported"),
    ({"vision_encoder": VISION_PARAMS | {"mm_projector_id": "x"}}, "vision_encoder.mm_projector_id 'x'"),
    ({"vision_encoder": {"hidden_size": 16}}, "params.json lacks num_channels"),
    ({"dim": "wide"}, "params.json has a value that is not valid"),
    ({"yarn": 3}, "yarn holds no JSON object"),
    ({"llama_4_scaling": [1]}, "llama_4_scaling holds no JSON object"),
    ({"vision_encoder": [1]}, "vision_encoder holds no JSON object"),
    ({"norm_eps": float("nan")}, "norm_eps must be a finite number"),
    ({"n_kv_heads": 3}, "n_heads 4 is not a multiple of n_kv_heads 3"),
    *[
        ({name: ...}, f"params.json lacks {name}")
        for name in PARAMS if name != "max_position_embeddings"
    ],
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_what_is_not_understood_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    raw = {name: value for name, value in (PARAMS | changes).items() if value is not ...}
    with pytest.raises(UnsupportedCheckpoint) as caught:
        config_from_params(raw)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"tied_embeddings": True, "sliding_window": 9}, {"yarn": YARN}, {"yarn": YARN | {"apply_scale": True}},
        {"yarn": YARN, "llama_4_scaling": SCALING}, {"vision_encoder": VISION_PARAMS},
        {"vision_encoder": VISION_PARAMS | {"spatial_merge_size": 1, "mm_projector_id": "", "adapter_bias": True}},
    ],
)  # fmt: skip
def test_what_is_written_is_read_again(changes: dict[str, Any]) -> None:
    config = config_from_params(PARAMS | changes)
    assert config_from_params(json.loads(json.dumps(params_from_config(config)))) == config


UNSAYABLE: list[tuple[dict[str, Any], str]] = [
    ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "this rotary embedding"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, "this rotary embedding"),
    (
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 1.5}},
        "this rotary embedding",
    ),
    (
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "mscale": 1.0, "mscale_all_dim": 0.5}},
        "this rotary embedding",
    ),
]


@pytest.mark.parametrize(("changes", "message"), UNSAYABLE)
def test_what_the_file_cannot_say_is_not_written(changes: dict[str, Any], message: str) -> None:
    raw = {
        "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64,
        "num_attention_heads": 4, "vocab_size": 260, "max_position_embeddings": 256,
    }  # fmt: skip
    with pytest.raises(UnsupportedCheckpoint, match=f"params.json cannot say what {message}"):
        params_from_config(ModelConfig.from_hf(raw | changes))


class TestFromFolder:
    def test_where_there_is_no_config_json(self, tmp_path: Path) -> None:
        (tmp_path / "params.json").write_text(json.dumps(PARAMS))
        assert ModelConfig.from_folder(tmp_path) == config_from_params(PARAMS)

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"3"])
    def test_a_broken_file(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "params.json").write_bytes(content)
        with pytest.raises(
            UnsupportedCheckpoint, match=r"params\.json (cannot be read|holds no JSON object)"
        ):
            ModelConfig.from_folder(tmp_path)
