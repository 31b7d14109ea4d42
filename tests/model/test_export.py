"""Exported checkpoints: layouts turn into each other without loss, and no folder is half there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from mezzo.model import shards
from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from mezzo.model.export import CannotExport, exported_bytes, load_for_export, write_checkpoint
from mezzo.model.network import Network
from mezzo.prompt.media.images import ImageProcessor
from tests.model.layouts import HF_FP8, hf_weights, in_fp8, write
from tests.model.layouts import TEXT as FP8_TEXT
from tests.tiny import MULTIMODAL_CONFIG
from tests.tiny import write_checkpoint as write_random

YARN = {
    "rope_type": "yarn", "rope_theta": 1000.0, "factor": 8.0, "original_max_position_embeddings": 32,
    "beta_fast": 16.0, "beta_slow": 2.0, "mscale": 1.0,
}  # fmt: skip
MISTRAL: dict[str, Any] = {"model_type": "mistral", "sliding_window": None}
TEXTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"tie_word_embeddings": True},
    "window": {"model_type": "mistral", "sliding_window": 5},
    "yarn": {**MISTRAL, "rope_parameters": {**YARN, "mscale_all_dim": 0.0}},
    "ministral3": {
        "model_type": "ministral3",
        "rope_parameters": {**YARN, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.3},
    },
}
LINEAR = {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}
LLAVA = MULTIMODAL_CONFIG | {
    "model_type": "llava", "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
    "multimodal_projector_bias": True,
}  # fmt: skip
EYES: dict[str, dict[str, Any]] = {
    # What params.json cannot say otherwise, it takes for granted.
    "mistral3": MULTIMODAL_CONFIG
    | {"vision_config": MULTIMODAL_CONFIG["vision_config"] | {"hidden_act": "silu"}},
    "llava": LLAVA | {"vision_config": MULTIMODAL_CONFIG["vision_config"] | {"hidden_act": "silu"}},
}


def network_of(folder: Path) -> Network:
    return load_for_export(folder, "float32")


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return tensors


def assert_same_tensors(one: Path, other: Path) -> None:
    ours, theirs = tensors_of(one), tensors_of(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class TestRoundTrips:
    @pytest.mark.parametrize("case", [*TEXTS, *EYES])
    def test_hf_to_mistral_to_hf(self, tmp_path: Path, case: str) -> None:
        given = write_random(tmp_path / "given", **(TEXTS | EYES)[case])
        first = network_of(given)
        write_checkpoint(first, tmp_path / "native", layout="mistral", max_shard_bytes=20_000)
        assert (tmp_path / "native" / "consolidated.safetensors.index.json").exists()
        second = network_of(tmp_path / "native")
        assert second.config == first.config
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
        write_checkpoint(second, tmp_path / "back")
        assert_same_tensors(given, tmp_path / "back")
        assert ModelConfig.from_folder(tmp_path / "back") == first.config

    def test_rows_of_the_native_layout_have_rotary_pairs_side_by_side(self, tmp_path: Path) -> None:
        """Head 1 of 4 has rows 8 to 15; its pair (i, i + 4) is written as rows (2i, 2i + 1)."""
        given = write_random(tmp_path / "given")
        write_checkpoint(network_of(given), tmp_path / "native", layout="mistral")
        theirs, ours = tensors_of(tmp_path / "native"), tensors_of(given)
        head = ours["model.layers.0.self_attn.q_proj.weight"][8:16]
        assert torch.equal(theirs["layers.0.attention.wq.weight"][8:16], head[[0, 4, 1, 5, 2, 6, 3, 7]])
        assert torch.equal(
            theirs["layers.0.attention.wv.weight"], ours["model.layers.0.self_attn.v_proj.weight"]
        )

    def test_fp8_comes_out_in_the_wanted_format_and_says_so(self, tmp_path: Path) -> None:
        stored, meant = in_fp8(hf_weights(FP8_TEXT))
        raw = FP8_TEXT | {"quantization_config": HF_FP8}
        given = write(tmp_path / "given", raw, {"model.safetensors": stored})
        write_checkpoint(load_for_export(given, "bfloat16"), tmp_path / "out", source=given)
        assert ModelConfig.from_folder(tmp_path / "out").quantization is None
        written = tensors_of(tmp_path / "out")
        assert written.keys() == meant.keys()
        assert all(torch.equal(written[name], meant[name].bfloat16()) for name in meant)


class TestRefusals:
    def test_params_json_cannot_say_everything(self, tmp_path: Path) -> None:
        network = network_of(write_random(tmp_path / "given", **LINEAR))
        with pytest.raises(UnsupportedCheckpoint, match=r"params\.json cannot say .*linear"):
            write_checkpoint(network, tmp_path / "out", layout="mistral")
        assert [path.name for path in tmp_path.iterdir()] == ["given"]

    def test_numbers_beyond_float16(self, tmp_path: Path) -> None:
        network = load_for_export(write_random(tmp_path / "given"), "float16")
        network.decoder.layers[0].ffn_norm.weight[3] = 1e6
        with pytest.raises(
            UnsupportedCheckpoint, match=r"layers\.0\.post_attention_layernorm\.weight has numbers that"
        ):
            write_checkpoint(network, tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestFolder:
    @pytest.fixture
    def network(self, tmp_path: Path) -> Network:
        return network_of(write_random(tmp_path / "given"))

    def test_files_of_the_source_go_along(self, tmp_path: Path, network: Network) -> None:
        (tmp_path / "given" / "tokenizer.json").write_text("{}")
        write_checkpoint(network, tmp_path / "out", source=tmp_path / "given", companions=["tokenizer.json"])
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert names == {"config.json", "model.safetensors", "tokenizer.json"}

    @pytest.mark.parametrize("given", [None, "preprocessor_config.json", "processor_config.json"])
    def test_how_images_are_read_is_said_once(self, tmp_path: Path, given: str | None) -> None:
        source = write_random(tmp_path / "eyes", **EYES["mistral3"])
        if given is not None:
            (source / given).write_text('{"patch_size": 4, "spatial_merge_size": 2}')
        network = network_of(source)
        companions = [] if given is None else [given]
        write_checkpoint(network, tmp_path / "out", source=source, companions=companions)
        kept = {path.name for path in (tmp_path / "out").glob("*processor_config.json")}
        assert kept == (set(companions) or {"preprocessor_config.json", "processor_config.json"})
        assert ModelConfig.from_folder(tmp_path / "out") == network.config
        processor = ImageProcessor.from_folder(tmp_path / "out")
        assert processor is not None
        assert (processor.patch_size, processor.spatial_merge_size) == (4, 2)

    def test_progress_counts_every_byte(self, tmp_path: Path, network: Network) -> None:
        written: list[int] = []
        write_checkpoint(network, tmp_path / "out", advance=written.append)
        assert (
            sum(written)
            == exported_bytes(network)
            == sum(t.nbytes for t in tensors_of(tmp_path / "out").values())
        )

    def test_an_empty_folder_is_filled(self, tmp_path: Path, network: Network) -> None:
        (tmp_path / "out").mkdir()
        write_checkpoint(network, tmp_path / "out")
        assert (tmp_path / "out" / "config.json").exists()

    def test_nothing_is_written_over(self, tmp_path: Path, network: Network) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("precious")
        with pytest.raises(CannotExport, match="out is not empty"):
            write_checkpoint(network, tmp_path / "out")
        (tmp_path / "file").write_text("precious")
        with pytest.raises(CannotExport, match="file is not a folder"):
            write_checkpoint(network, tmp_path / "file")
        with pytest.raises(CannotExport, match="nowhere does not exist"):
            write_checkpoint(network, tmp_path / "nowhere" / "out")
        assert {path.name for path in tmp_path.iterdir()} == {"given", "out", "file"}

    def test_an_interrupted_export_leaves_nothing(self, tmp_path: Path, network: Network) -> None:
        def interrupt(num_bytes: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(network, tmp_path / "out", advance=interrupt)
        assert [path.name for path in tmp_path.iterdir()] == ["given"]

    def test_parts_smaller_than_a_tensor(
        self, tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for layout in ("hf", "mistral"):
            write_checkpoint(network, tmp_path / layout, layout=layout)  # type: ignore[arg-type]
            with monkeypatch.context() as patch:
                patch.setattr(shards, "PART_BYTES", 512)
                write_checkpoint(network, tmp_path / f"{layout}-parts", layout=layout)  # type: ignore[arg-type]
            assert_same_tensors(tmp_path / layout, tmp_path / f"{layout}-parts")
