"""A language model and a vision half become one checkpoint, or a sentence that says why not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.weights.vision_files import SPARE, VISION_CONFIG, vision_tensors

from mezzo.kit.files import sha256_of_file
from mezzo.model.config import ModelConfig
from mezzo.prompt.tokenizer import TextTokenizer
from mezzo.weights import SilentProgress, WeightsError, resolve_weights
from mezzo.weights.convert import Origin, convert_gguf
from mezzo.weights.folder import missing_files
from mezzo.weights.sources import NANO
from mezzo.weights.vision_half import CHAT_TEMPLATE, SETTINGS, TENSORS, VisionHalf

if TYPE_CHECKING:
    from collections.abc import Mapping

Make = Callable[..., Any]
ORIGIN = Origin("tiny.gguf", "0" * 64)


def convert(gguf: Path, folder: Path, vision: VisionHalf | None) -> Path:
    convert_gguf(gguf, folder, origin=ORIGIN, progress=SilentProgress(), vision=vision)
    return folder


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.fixture
def gguf(make_gguf: Make) -> Path:
    path: Path = make_gguf(spare=SPARE)
    return path


class TestFolder:
    def test_is_a_mistral_3_checkpoint(self, gguf: Path, make_vision: Make, tmp_path: Path) -> None:
        vision: VisionHalf = make_vision()
        folder = convert(gguf, tmp_path / "out", vision)
        assert missing_files(folder) == []
        assert sorted(file.name for file in folder.iterdir()) == [
            *("chat_template.jinja", "config.json", "generation_config.json", "merged_lora.safetensors"),
            *("mezzo.json", "model.safetensors", "preprocessor_config.json", "processor_config.json"),
            *("tokenizer.json", "tokenizer_config.json"),
        ]
        raw = read(folder / "config.json")
        assert raw["architectures"] == ["Mistral3ForConditionalGeneration"]
        assert (raw["text_config"]["model_type"], raw["vision_config"]["model_type"]) == (
            "mistral",
            "pixtral",
        )
        assert (raw["image_token_index"], raw["tie_word_embeddings"]) == (5, True)
        assert raw["text_config"]["eos_token_id"] == 2
        assert VISION_CONFIG.items() <= raw["vision_config"].items()
        assert read(folder / "mezzo.json")["vision_sha256"] == sha256_of_file(vision.folder / TENSORS)

    def test_its_numbers_are_those_of_vision_json(
        self, gguf: Path, make_vision: Make, tmp_path: Path
    ) -> None:
        vision_config = VISION_CONFIG | {"image_size": 48, "rope_theta": 500.0, "hidden_act": "gelu"}
        half = make_vision(
            vision_config=vision_config, projector_hidden_act="quick_gelu", image_std=[0.1, 0.2, 0.3]
        )
        vision = ModelConfig.from_folder(convert(gguf, tmp_path / "out", half)).vision
        assert vision is not None
        assert (vision.image_size, vision.rope_theta, vision.hidden_act) == (48, 500.0, "gelu")
        assert (vision.projector_act, vision.image_mean) == ("quick_gelu", (0.4, 0.5, 0.6))
        assert (vision.image_std, vision.spatial_merge_size) == ((0.1, 0.2, 0.3), 2)

    def test_its_tensors_are_both_halves_and_the_updates(
        self, gguf: Path, make_vision: Make, tmp_path: Path
    ) -> None:
        language = load_file(convert(gguf, tmp_path / "language", None) / "model.safetensors")
        joined = load_file(convert(gguf, tmp_path / "joined", make_vision()) / "model.safetensors")
        given = vision_tensors()
        updated = {
            "self_attn.k_proj": "language_model.layers.0.self_attn.k_proj",
            "mlp.down_proj": "language_model.layers.1.mlp.down_proj",
        }
        expected = {name: tensor.astype(np.float32) for name, tensor in given.items() if "lora" not in name}
        expected |= {f"language_model.{name}": tensor for name, tensor in language.items()}
        for name, stem in updated.items():
            a, b = (given[f"{stem}.lora_{part}"].astype(np.float64) for part in "ab")
            layer = stem.split(".")[2]
            expected[f"language_model.model.layers.{layer}.{name}.weight"] = (
                language[f"model.layers.{layer}.{name}.weight"] + b @ a
            )
        assert joined.keys() == expected.keys()
        for name, tensor in joined.items():
            assert tensor.dtype == np.float32
            # Three products of a few tenths, added in float32.
            tolerance = 1e-5 if any(stem in name for stem in updated) else 0
            assert np.abs(tensor - expected[name]).max() <= tolerance, name
        changed = "language_model.model.layers.0.self_attn.k_proj.weight"
        assert np.abs(joined[changed] - language["model.layers.0.self_attn.k_proj.weight"]).max() > 0.1

    def test_what_was_merged_is_kept_beside_it(self, gguf: Path, make_vision: Make, tmp_path: Path) -> None:
        folder = convert(gguf, tmp_path / "out", make_vision())
        updates, joined = (
            load_file(folder / "merged_lora.safetensors"),
            load_file(folder / "model.safetensors"),
        )
        language = load_file(convert(gguf, tmp_path / "language", None) / "model.safetensors")
        assert len(updates) == 4
        for stem in ("model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"):
            a, b = (updates[f"language_model.{stem}.lora_{part}.weight"] for part in "AB")
            found = joined[f"language_model.{stem}.weight"] - b @ a
            assert np.abs(found - language[f"{stem}.weight"]).max() < 1e-6

    def test_untied_embeddings_stay_untied(self, make_gguf: Make, make_vision: Make, tmp_path: Path) -> None:
        folder = convert(make_gguf(spare=SPARE, tied=False), tmp_path / "out", make_vision())
        assert "language_model.lm_head.weight" in load_file(folder / "model.safetensors")
        assert not ModelConfig.from_folder(folder).tied_embeddings

    def test_converting_imports_no_torch(self, gguf: Path, make_vision: Make, tmp_path: Path) -> None:
        program = (
            "import sys; from pathlib import Path; from mezzo.weights import SilentProgress\n"
            "from mezzo.weights.convert import Origin, convert_gguf\n"
            "from mezzo.weights.vision_half import VisionHalf\n"
            "vision = VisionHalf(Path(sys.argv[3]), '<empty>', '<script>', '<notebook>')\n"
            "convert_gguf(Path(sys.argv[1]), Path(sys.argv[2]), origin=Origin('a', 'b'),"
            " progress=SilentProgress(), vision=vision)\n"
            "print('torch' in sys.modules)"
        )
        arguments = [str(gguf), str(tmp_path / "out"), str(make_vision().folder)]
        run = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
        )
        assert run.stdout == "False\n"


class TestTokenizer:
    def test_spare_tokens_are_renamed_in_place(self, gguf: Path, make_vision: Make, tmp_path: Path) -> None:
        folder = convert(gguf, tmp_path / "out", make_vision())
        tokenizer = TextTokenizer.from_folder(folder)
        before = TextTokenizer.from_folder(convert(gguf, tmp_path / "language", None))
        assert before.control_tokens.keys() - tokenizer.control_tokens.keys() == set(SPARE)
        assert {name: tokenizer.control_tokens[name] for name in ("[IMG]", "[IMG_BREAK]", "[IMG_END]")} == {
            "[IMG]": 5,
            "[IMG_BREAK]": 4,
            "[IMG_END]": 3,
        }
        assert tokenizer.vocab_size == before.vocab_size
        config = read(folder / "tokenizer_config.json")
        assert config["additional_special_tokens"] == ["[IMG_END]", "[IMG_BREAK]", "[IMG]"]
        assert "chat_template" not in config

    @pytest.mark.parametrize("spare", [[], SPARE[:2]])
    def test_a_language_half_without_them_is_refused(
        self, make_gguf: Make, make_vision: Make, tmp_path: Path, spare: list[str]
    ) -> None:
        with pytest.raises(WeightsError, match=r"tiny\.gguf lacks the control tokens <empty>"):
            convert(make_gguf(spare=spare), tmp_path / "out", make_vision())

    def test_a_gguf_without_vision_half_keeps_its_names(self, gguf: Path, tmp_path: Path) -> None:
        folder = resolve_weights(str(gguf), home=tmp_path / "home", progress=SilentProgress()).path
        assert read(folder / "config.json")["architectures"] == ["LlamaForCausalLM"]
        assert set(SPARE) < TextTokenizer.from_folder(folder).control_tokens.keys()
        assert not (folder / "processor_config.json").exists()


def without(name: str) -> dict[str, np.ndarray]:
    tensors = vision_tensors()
    del tensors[name]
    return tensors


A = "language_model.layers.0.self_attn.k_proj.lora_a"
B = "language_model.layers.0.self_attn.k_proj.lora_b"


class TestRefusals:
    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            (without(A), r"update of language_model\.layers\.0\.self_attn\.k_proj lacks \.lora_a"),
            (without(B), r"update of .*k_proj lacks \.lora_b"),
            (
                vision_tensors() | {B: np.ones((31, 3), np.float16)},
                r"update of .*k_proj has shapes \(31, 3\) and \(3, 64\), which make no \(32, 64\)",
            ),
            (vision_tensors() | {A: np.ones((4, 64), np.float16)}, r"which make no \(32, 64\)"),
            (vision_tensors() | {A: np.ones(3, np.float16)}, "which make no"),
            (
                vision_tensors() | {A.replace("s.0", "s.2"): np.ones((3, 64), np.float16)},
                r"without a place in the model: language_model\.layers\.2\.self_attn\.k_proj\.lora_a",
            ),
            (vision_tensors() | {"other": np.ones(3, np.float16)}, "without a place in the model: other"),
            (
                vision_tensors() | {"vision_tower.ln_pre.weight": np.ones(32, np.float32)},
                r"Tensor vision_tower\.ln_pre\.weight of vision\.safetensors is F32, not F16",
            ),
        ],
    )
    def test_tensors_that_do_not_fit(
        self,
        gguf: Path,
        make_vision: Make,
        tmp_path: Path,
        tensors: Mapping[str, np.ndarray],
        message: str,
    ) -> None:
        with pytest.raises(WeightsError, match=message):
            convert(gguf, tmp_path / "out", make_vision(dict(tensors)))
        assert not (tmp_path / "out").exists()

    def test_a_damaged_file(self, gguf: Path, make_vision: Make, tmp_path: Path) -> None:
        vision: VisionHalf = make_vision()
        with (vision.folder / TENSORS).open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"!")
        with pytest.raises(WeightsError, match=r"vision\.safetensors .* SHA-256 differs") as refused:
            convert(gguf, tmp_path / "out", vision)
        assert refused.value.hint == "Install mezzo again."

    @pytest.mark.parametrize("name", [SETTINGS, TENSORS, CHAT_TEMPLATE])
    def test_a_missing_file(self, gguf: Path, make_vision: Make, tmp_path: Path, name: str) -> None:
        vision: VisionHalf = make_vision()
        (vision.folder / name).unlink()
        with pytest.raises(WeightsError, match=name.replace(".", r"\.")) as refused:
            convert(gguf, tmp_path / "out", vision)
        assert refused.value.hint == "Install mezzo again."
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("name", ["vision_config", "spatial_merge_size", "image_mean", "sha256"])
    def test_settings_that_lack_a_number(
        self, gguf: Path, make_vision: Make, tmp_path: Path, name: str
    ) -> None:
        with pytest.raises(WeightsError, match=rf"vision\.json lacks {name}"):
            convert(gguf, tmp_path / "out", make_vision(**{name: None}))

    @pytest.mark.parametrize("name", VISION_CONFIG)
    def test_settings_of_the_tower_that_lack_a_number(
        self, gguf: Path, make_vision: Make, tmp_path: Path, name: str
    ) -> None:
        config = {key: value for key, value in VISION_CONFIG.items() if key != name}
        with pytest.raises(WeightsError, match=rf"vision\.json lacks vision_config\.{name}\."):
            convert(gguf, tmp_path / "out", make_vision(vision_config=config))

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"vision_config": 3}'])
    def test_settings_that_are_no_settings(
        self, gguf: Path, make_vision: Make, tmp_path: Path, text: str
    ) -> None:
        vision: VisionHalf = make_vision()
        (vision.folder / SETTINGS).write_text(text)
        with pytest.raises(WeightsError, match=r"vision\.json"):
            convert(gguf, tmp_path / "out", vision)

    def test_a_vision_half_that_is_not_computed(self, gguf: Path, make_vision: Make, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"vision half is not supported: .*'relu'"):
            convert(gguf, tmp_path / "out", make_vision(projector_hidden_act="relu"))


class TestDigest:
    def test_depends_on_every_file(self, make_vision: Make) -> None:
        vision: VisionHalf = make_vision()
        digests = {vision.digest()}
        tensors = vision_tensors(seed=6)
        digests.add(make_vision(tensors).digest())
        digests.add(make_vision(tensors, image_std=[1, 1, 1]).digest())
        (vision.folder / CHAT_TEMPLATE).write_text("another")
        digests.add(vision.digest())
        assert len(digests) == 4

    def test_is_enough_to_find_a_conversion(self, make_vision: Make) -> None:
        """A server that starts does not read 25 MB for the name of a folder."""
        vision: VisionHalf = make_vision()
        expected = vision.digest()
        (vision.folder / TENSORS).unlink()
        assert vision.digest() == expected


def test_new_vision_half_makes_a_new_folder(make_vision: Make) -> None:
    language = replace(NANO, vision=None)
    assert language.content_sha256 == NANO.member_sha256
    first = replace(NANO, vision=make_vision()).content_sha256
    second = replace(NANO, vision=make_vision(vision_tensors(seed=6))).content_sha256
    assert len({language.content_sha256, first, second}) == 3
