"""Every layout and every file naming gives the same network; what is not whole or not known is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from mezzo.model.layout import HF_MULTIMODAL_SAVED, MISTRAL
from mezzo.model.network import Network
from tests.model.layouts import EYES, PARAMS, TEXT, VISION_PARAMS, halves, hf_weights, native, write
from tests.tiny import CPU

BOTH = {"text": (TEXT, PARAMS), "eyes": (EYES, PARAMS | {"vision_encoder": VISION_PARAMS})}
WQ = "layers.1.attention.wq.weight"


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Network:
    return load_network(folder, ModelConfig.from_folder(folder), dtype=dtype, device=CPU)


def assert_same(one: Network, other: Network) -> None:
    ours, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


class TestNative:
    @pytest.mark.parametrize("case", BOTH)
    def test_is_the_network_of_the_hugging_face_layout(self, tmp_path: Path, case: str) -> None:
        raw, params = BOTH[case]
        weights = hf_weights(raw)
        hf = load(write(tmp_path / "hf", raw, {"model.safetensors": weights}))
        ours = load(write(tmp_path / "native", params, {"consolidated.safetensors": native(weights)}))
        assert ours.config == hf.config
        assert_same(ours, hf)

    @pytest.mark.parametrize("index", [True, False])
    def test_shards_with_and_without_an_index(self, tmp_path: Path, index: bool) -> None:
        weights = native(hf_weights(TEXT))
        one = load(write(tmp_path / "one", PARAMS, {"consolidated.00.safetensors": weights}))
        two = load(write(tmp_path / "two", PARAMS, halves(weights, "consolidated"), index=index))
        assert_same(one, two)

    def test_scales_of_a_cache_that_is_not_there_are_passed_over(self, tmp_path: Path) -> None:
        weights = native(hf_weights(TEXT))
        one = load(write(tmp_path / "one", PARAMS, {"consolidated.safetensors": weights}))
        extra = {"layers.0.attention.k_fake_quantizer.qscale_act": torch.ones(1)}
        two = load(write(tmp_path / "two", PARAMS, {"consolidated.safetensors": weights | extra}))
        assert_same(one, two)

    @pytest.mark.parametrize("case", BOTH)
    def test_every_parameter_has_a_line_in_every_table(self, case: str) -> None:
        config = ModelConfig.from_hf(BOTH[case][0])
        with torch.device("meta"):
            parameters = set(dict(Network.from_config(config, torch.float32).named_parameters()))
        for layout in (HF_MULTIMODAL_SAVED, MISTRAL):
            places = layout.places(config, parameters).values()
            assert {place.parameter for place in places} == parameters


class TestBothLayouts:
    def write_both(self, folder: Path, hf_scale: float) -> Path:
        weights = hf_weights(TEXT)
        write(folder, PARAMS, {"consolidated.safetensors": native(weights)})
        scaled = {name: tensor * hf_scale for name, tensor in weights.items()}
        return write(folder, TEXT | {"rope_theta": 500.0}, {"model.safetensors": scaled})

    def test_the_hugging_face_one_is_taken(self, tmp_path: Path) -> None:
        folder = self.write_both(tmp_path, 2.0)
        network = load(folder)
        assert network.config.rope.theta == 500.0
        assert torch.equal(network.decoder.output.weight, 2 * hf_weights(TEXT)["lm_head.weight"])

    def test_the_native_one_where_the_other_has_no_weights(self, tmp_path: Path) -> None:
        folder = self.write_both(tmp_path, 2.0)
        (folder / "model.safetensors").unlink()
        network = load(folder)
        assert network.config.rope.theta == 10000.0
        assert torch.equal(network.decoder.output.weight, hf_weights(TEXT)["lm_head.weight"])


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({WQ: None}, f"lacks {WQ}"),
            ({"layers.0.attention.wq.bias": torch.ones(32)}, r"unknown tensor layers\.0\.attention\.wq\.bias"),
            ({"layers.2.ffn_norm.weight": torch.ones(32)}, r"unknown tensor layers\.2\.ffn_norm\.weight"),
            ({"vision_encoder.ln_pre.weight": torch.ones(8)}, r"unknown tensor vision_encoder\.ln_pre\.weight"),
            ({"model.norm.weight": torch.ones(32)}, r"unknown tensor model\.norm\.weight"),
            ({WQ: torch.ones(32, 31)}, rf"{WQ} has shape \(32, 31\), but the configuration makes it \(32, 32\)"),
        ],
    )  # fmt: skip
    def test_tensors(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        weights = {n: t for n, t in (native(hf_weights(TEXT)) | changes).items() if t is not None}
        write(tmp_path, PARAMS, {"consolidated.safetensors": weights})
        with pytest.raises(UnsupportedCheckpoint, match=message):
            load(tmp_path)

    @pytest.mark.parametrize("stem", ["model", "consolidated"])
    def test_a_missing_shard(self, tmp_path: Path, stem: str) -> None:
        raw, weights = (
            (PARAMS, native(hf_weights(TEXT))) if stem == "consolidated" else (TEXT, hf_weights(TEXT))
        )
        write(tmp_path, raw, halves(weights, stem), index=stem == "model")
        (tmp_path / f"{stem}-00001-of-00002.safetensors").unlink()
        with pytest.raises(UnsupportedCheckpoint, match=rf"lacks {stem}-00001-of-00002\.safetensors"):
            load(tmp_path)

    def test_a_gap_in_an_old_series(self, tmp_path: Path) -> None:
        write(tmp_path, PARAMS, {"consolidated.01.safetensors": native(hf_weights(TEXT))})
        with pytest.raises(UnsupportedCheckpoint, match=r"lacks consolidated\.00\.safetensors"):
            load(tmp_path)

    def test_a_tensor_in_two_files(self, tmp_path: Path) -> None:
        files = halves(native(hf_weights(TEXT)), "consolidated")
        one, two = files.values()
        two[next(iter(one))] = next(iter(one.values()))
        write(tmp_path, PARAMS, files)
        with pytest.raises(
            UnsupportedCheckpoint,
            match=rf"{next(iter(one))} is in consolidated-00001-.* and again in .*-00002-",
        ):
            load(tmp_path)

    def test_an_index_without_files(self, tmp_path: Path) -> None:
        write(tmp_path, PARAMS, {})
        (tmp_path / "consolidated.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
        with pytest.raises(UnsupportedCheckpoint, match=r"consolidated\.safetensors\.index\.json is damaged"):
            load(tmp_path)

    def test_only_a_configuration(self, tmp_path: Path) -> None:
        write(tmp_path, PARAMS, {})
        with pytest.raises(UnsupportedCheckpoint, match=r"lacks model\.safetensors"):
            load(tmp_path)
