"""Reading the configuration of a multimodal model: what may be left out, what is refused, and by which name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mezzo.model.config import ModelConfig, RopeConfig, UnsupportedCheckpoint
from mezzo.model.vision_config import CLIP_MEAN, CLIP_STD, VisionConfig

TEXT: dict[str, Any] = {
    "model_type": "mistral", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "intermediate_size": 112, "vocab_size": 160,
}  # fmt: skip
VISION: dict[str, Any] = {
    "model_type": "pixtral", "hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4,
    "intermediate_size": 72, "image_size": 64, "patch_size": 4,
}  # fmt: skip
BASE: dict[str, Any] = {"model_type": "mistral3", "text_config": TEXT, "vision_config": VISION}
LLAVA = BASE | {
    "model_type": "llava", "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
    "image_token_index": 10,
}  # fmt: skip


def without(raw: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name not in names}


def vision(raw: dict[str, Any], processor: dict[str, Any] | None = None) -> VisionConfig:
    read = ModelConfig.from_hf(raw, processor).vision
    assert read is not None
    return read


class TestFields:
    def test_of_mistral3(self) -> None:
        raw = BASE | {
            "spatial_merge_size": 3, "multimodal_projector_bias": True, "projector_hidden_act": "gelu_new",
            "image_token_index": 99,
            "text_config": TEXT | {"rms_norm_eps": 1e-4},
            "vision_config": VISION | {"rope_theta": 500.0, "hidden_act": "silu"},
        }  # fmt: skip
        assert vision(raw) == VisionConfig(
            hidden_size=32, image_size=64, patch_size=4, intermediate_size=72, num_hidden_layers=5,
            num_attention_heads=4, rope_theta=500.0, hidden_act="silu", spatial_merge_size=3, image_token_id=99,
            projector_norm=True, projector_norm_eps=1e-4, patch_merger=True, projector_bias=True,
            projector_act="gelu_tanh",
        )  # fmt: skip

    def test_of_llava(self) -> None:
        read = vision(LLAVA)
        assert not read.projector_norm
        assert not read.patch_merger
        assert (read.spatial_merge_size, read.projector_bias, read.image_token_id) == (1, True, 10)

    def test_the_decoder_is_that_of_its_text_config(self) -> None:
        text = {"rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "sliding_window": 4096}
        alone = ModelConfig.from_hf(TEXT | text)
        assert replace(ModelConfig.from_hf(BASE), vision=None) == replace(alone, tied_embeddings=True)

    def test_a_text_model_has_no_eyes(self) -> None:
        assert ModelConfig.from_hf(TEXT).vision is None

    @pytest.mark.parametrize(
        ("given", "read"),
        [
            ("gelu", "gelu"), ("gelu_python", "gelu"), ("gelu_pytorch_tanh", "gelu_tanh"), ("gelu_fast", "gelu_tanh"),
            ("quick_gelu", "quick_gelu"), ("silu", "silu"), ("swish", "silu"),
        ],
    )  # fmt: skip
    def test_activations(self, given: str, read: str) -> None:
        assert vision(BASE | {"vision_config": VISION | {"hidden_act": given}}).hidden_act == read

    @pytest.mark.parametrize("layer", [-1, 5, [-1], [5]])
    def test_spellings_of_the_last_layer(self, layer: Any) -> None:
        assert vision(BASE | {"vision_feature_layer": layer}) == vision(BASE)

    def test_squares_may_be_lists(self) -> None:
        changed = VISION | {"image_size": [64, 64], "patch_size": [4, 4]}
        assert vision(BASE | {"vision_config": changed}) == vision(BASE)

    @pytest.mark.parametrize(
        "rope",
        [
            {"rope_theta": 7.0},
            {"rope_parameters": {"rope_theta": 7.0}},
            {"rope_parameters": {"rope_theta": 7.0, "rope_type": "axial"}},
            {"rope_parameters": {"rope_type": "default"}, "rope_theta": 7.0},
        ],
    )
    def test_spellings_of_the_rotary_embedding(self, rope: dict[str, Any]) -> None:
        assert vision(BASE | {"vision_config": VISION | rope}).rope_theta == 7.0

    def test_the_other_name_of_the_image_token(self) -> None:
        assert vision(BASE | {"image_token_id": 33}).image_token_id == 33

    @pytest.mark.parametrize(
        ("raw", "tied"),
        [
            (BASE, True),
            (BASE | {"text_config": TEXT | {"tie_word_embeddings": False}}, True),
            (
                BASE | {"tie_word_embeddings": False, "text_config": TEXT | {"tie_word_embeddings": True}},
                False,
            ),
            (LLAVA, False),
            (LLAVA | {"tie_word_embeddings": True}, True),
            (
                LLAVA | {"tie_word_embeddings": False, "text_config": TEXT | {"tie_word_embeddings": True}},
                True,
            ),
        ],
    )
    def test_whose_word_counts_for_tied_embeddings(self, raw: dict[str, Any], tied: bool) -> None:
        assert ModelConfig.from_hf(raw).tied_embeddings is tied


class TestImageProcessor:
    def test_what_it_says_of_colours_and_size(self) -> None:
        processor = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "size": {"longest_edge": 32}}
        read = vision(BASE, processor)
        assert read.image_mean == (0.1, 0.2, 0.3)
        assert read.image_std == (1.0, 2.0, 3.0)
        assert read.image_size == 32

    def test_without_one_it_is_clip_s(self) -> None:
        assert (vision(BASE).image_mean, vision(BASE).image_std) == (CLIP_MEAN, CLIP_STD)

    @pytest.mark.parametrize(
        ("files", "first"),
        [
            ({"preprocessor_config.json": {"image_mean": [1, 1, 1]}}, 1.0),
            ({"processor_config.json": {"image_processor": {"image_mean": [2, 2, 2]}}}, 2.0),
            (
                {
                    "preprocessor_config.json": {"image_mean": [1, 1, 1]},
                    "processor_config.json": {"image_processor": {"image_mean": [2, 2, 2]}},
                },
                2.0,
            ),
            ({"preprocessor_config.json": {"image_mean": [1, 1, 1]}, "processor_config.json": {"x": 1}}, 1.0),
            ({}, CLIP_MEAN[0]),
        ],
    )
    def test_files(self, tmp_path: Path, files: dict[str, Any], first: float) -> None:
        for name, content in (files | {"config.json": BASE}).items():
            (tmp_path / name).write_text(json.dumps(content))
        read = ModelConfig.from_folder(tmp_path).vision
        assert read is not None
        assert read.image_mean[0] == first

    @pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"image_processor": 3, "size": 3}'])
    def test_a_broken_file(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / "config.json").write_text(json.dumps(BASE))
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnsupportedCheckpoint):
            ModelConfig.from_folder(tmp_path)

    def test_text_models_are_read_without(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(TEXT))
        (tmp_path / "preprocessor_config.json").write_bytes(b"broken")
        assert ModelConfig.from_folder(tmp_path).vision is None


def changed(part: str, **changes: Any) -> dict[str, Any]:
    return BASE | {part: BASE[part] | changes}


REFUSALS: list[tuple[dict[str, Any], str]] = [
    (changed("text_config", model_type="llama"),
     "text_config: model type 'llama' is not supported; supported are mistral, ministral3"),
    (LLAVA | {"text_config": TEXT | {"model_type": "mixtral"}},
     "text_config: model type 'mixtral' is not supported; supported are mistral, ministral3, llama"),
    (changed("vision_config", model_type="siglip_vision_model"),
     "vision_config: model type 'siglip_vision_model' is not supported; supported is pixtral"),
    (without(LLAVA, "vision_config"), "vision_config: model type 'clip_vision_model'"),
    (BASE | {"text_config": [1]}, "text_config holds no JSON object"),
    (BASE | {"vision_config": "pixtral"}, "vision_config holds no JSON object"),
    (BASE | {"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    (changed("text_config", quantization_config={"quant_method": "gptq"}), "quantization_config"),
    (changed("text_config", hidden_act="gelu"), "hidden_act 'gelu'"),
    (BASE | {"vision_feature_layer": -2},
     "vision_feature_layer -2 is not supported; supported is the last layer, -1 or 5"),
    (BASE | {"vision_feature_layer": 4}, "vision_feature_layer 4"),
    (BASE | {"vision_feature_layer": [-2, -1]}, "vision_feature_layer [-2, -1]"),
    (BASE | {"vision_feature_layer": None}, "vision_feature_layer None"),
    (without(LLAVA, "vision_feature_layer"), "vision_feature_layer -2"),
    (LLAVA | {"vision_feature_select_strategy": "default"},
     "vision_feature_select_strategy 'default' is not supported; supported is 'full'"),
    (without(LLAVA, "vision_feature_select_strategy"), "vision_feature_select_strategy 'default'"),
    (BASE | {"projector_hidden_act": "relu"}, "projector_hidden_act 'relu' is not supported"),
    (BASE | {"projector_hidden_act": ["gelu"]}, "projector_hidden_act ['gelu'] is not supported"),
    (BASE | {"spatial_merge_size": 0}, "vision spatial_merge_size must be at least 1"),
    (BASE | {"spatial_merge_size": "two"}, "a value that is not valid"),
    (BASE | {"image_token_index": 160}, "image_token_id 160 is not in the vocabulary of 160"),
    (BASE | {"image_token_index": -1}, "image_token_id -1 is not in the vocabulary"),
    (without(LLAVA, "image_token_index"), "image_token_id 32000 is not in the vocabulary"),
    (changed("vision_config", hidden_act="relu"), "hidden_act 'relu' is not supported in the vision encoder"),
    (changed("vision_config", num_channels=1), "vision num_channels 1 is not supported; supported is 3"),
    (changed("vision_config", image_size=[64, 32]), "vision image_size [64, 32] is not supported"),
    (changed("vision_config", patch_size=[4, 2]), "vision patch_size [4, 2] is not supported"),
    (changed("vision_config", hidden_size=0), "vision hidden_size must be at least 1"),
    (changed("vision_config", num_hidden_layers=0), "vision num_hidden_layers must be at least 1"),
    (changed("vision_config", num_attention_heads=16), "a vision hidden_size that is a multiple of 4 for each head"),
    (changed("vision_config", num_attention_heads=0), "vision num_attention_heads must be at least 1"),
    (changed("vision_config", head_dim=16), "vision head_dim 16 is not supported"),
    (changed("vision_config", hidden_size="wide"), "a value that is not valid"),
    (changed("vision_config", rope_parameters={"rope_type": "yarn"}), "vision rope type 'yarn'"),
    (changed("vision_config", rope_parameters={"factor": 2.0}), "vision rope parameter 'factor'"),
    (changed("vision_config", rope_parameters=3), "a value that is not valid"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_what_is_not_understood_is_refused_by_name(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedCheckpoint) as caught:
        ModelConfig.from_hf(raw)
    assert message in str(caught.value)


PROCESSOR_REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"do_rescale": False}, "image processor: do_rescale false"),
    ({"do_normalize": False}, "image processor: do_normalize false"),
    ({"do_center_crop": True}, "image processor: do_center_crop"),
    ({"rescale_factor": 1.0}, "image processor: rescale_factor 1.0"),
    ({"size": {"height": 3, "width": 3}}, "image processor: size {'height': 3, 'width': 3}"),
    ({"size": 64}, "image processor: size 64"),
    ({"image_mean": [1, 2]}, "image processor: image_mean must be three numbers, not [1, 2]"),
    ({"image_mean": 0.5}, "image processor: image_mean must be three numbers, not 0.5"),
    ({"image_mean": [1, 2, float("nan")]}, "image_mean must be three numbers"),
    ({"image_std": [1, 0, 1]}, "image_std must be three numbers above 0"),
    ({"image_std": [1, "x", 1]}, "a value that is not valid"),
]


@pytest.mark.parametrize(
    ("processor", "message"), PROCESSOR_REFUSALS, ids=[message for _, message in PROCESSOR_REFUSALS]
)
def test_processors_that_do_something_else_are_refused(processor: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedCheckpoint) as caught:
        ModelConfig.from_hf(BASE, processor)
    assert message in str(caught.value)


def test_merging_needs_a_merger() -> None:
    with pytest.raises(UnsupportedCheckpoint, match="without a patch merger"):
        replace(vision(LLAVA), spatial_merge_size=2)


SMALL_VISION = {"hidden_size": 64, "num_hidden_layers": 5}
OMISSIONS: dict[str, dict[str, Any]] = {
    "everything": {"model_type": "mistral3"},
    "null parts": {"model_type": "mistral3", "text_config": None, "vision_config": None},
    "a mistral of 8 layers": {"model_type": "mistral3", "text_config": {"num_hidden_layers": 8}},
    "a ministral3": {"model_type": "mistral3", "text_config": {"model_type": "ministral3"}},
    "a ministral3 with a rope of its own": {
        "model_type": "mistral3",
        "text_config": {
            "model_type": "ministral3", "rope_theta": 5.0, "rope_scaling": {"type": "linear", "factor": 3.0},
        },
    },
    "a ministral3 whose theta its class overrules": {
        "model_type": "mistral3", "text_config": {"model_type": "ministral3", "rope_theta": 5.0},
    },
    "a yarn without its context": {
        "model_type": "mistral3", "text_config": {"rope_scaling": {"type": "yarn", "factor": 3.0}, "rope_theta": 5.0},
    },
    "parts of an encoder": {"model_type": "mistral3", "vision_config": SMALL_VISION},
    "a llava on pixtral": {**LLAVA, "text_config": {"vocab_size": 99}, "vision_config": {"model_type": "pixtral"}},
    "a llava without a text_config": {
        **without(LLAVA, "text_config"), "vision_config": {"model_type": "pixtral", **SMALL_VISION},
    },
    "a llava on mistral": {**LLAVA, "text_config": {"model_type": "mistral"}},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("raw", OMISSIONS.values(), ids=OMISSIONS)
def test_what_is_left_out_is_what_the_reference_makes_of_it(raw: dict[str, Any]) -> None:
    """The reference reads it and writes out everything; both must then be the same to us."""
    import transformers

    classes = {"mistral3": transformers.Mistral3Config, "llava": transformers.LlavaConfig}
    made = classes[raw["model_type"]].from_dict(json.loads(json.dumps(raw)))
    whole = made.to_dict()
    assert ModelConfig.from_hf(raw) == ModelConfig.from_hf(whole)
    # What was written out is read from the file, not from a default of ours.
    assert whole["text_config"].keys() >= {
        "vocab_size",
        "hidden_size",
        "rms_norm_eps",
        "max_position_embeddings",
    }


def test_a_silent_ministral3_is_a_yarn() -> None:
    raw = {"model_type": "mistral3", "text_config": {"model_type": "ministral3"}}
    assert ModelConfig.from_hf(raw).rope == RopeConfig(
        theta=1e6, kind="yarn", factor=16.0, original_max_positions=16384, mscale=1.0, mscale_all_dim=1.0,
        query_scale_beta=0.1,
    )  # fmt: skip
