"""Loading weights: every tensor in its place, none missing, none left over, nothing from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from mezzo.model.decoder import Decoder
from mezzo.model.weight_files import weight_files
from tests.tiny import CPU, HF_CONFIG, MULTIMODAL_CONFIG, random_weights

CONFIG = ModelConfig.from_hf(HF_CONFIG)
TIED = ModelConfig.from_hf(HF_CONFIG | {"tie_word_embeddings": True})
Q = "model.layers.1.self_attn.q_proj.weight"


def load(
    folder: Path, config: ModelConfig = CONFIG, dtype: torch.dtype = torch.float32, **options: Any
) -> Decoder:
    return load_network(folder, config, dtype=dtype, device=CPU, **options).decoder


def save(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file(weights, folder / "model.safetensors")


def save_sharded(folder: Path, weights: dict[str, torch.Tensor]) -> dict[str, str]:
    names = sorted(weights)
    weight_map = {}
    for i, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    return weight_map


class TestPlaces:
    def test_every_tensor_is_where_it_belongs(self, tmp_path: Path) -> None:
        weights = random_weights(CONFIG)
        save(tmp_path, weights)
        decoder = load(tmp_path)
        layer = decoder.layers[1]

        def given(name: str) -> torch.Tensor:
            return weights[f"model.layers.1.{name}.weight"]

        expected = {
            decoder.tok_embeddings.weight: weights["model.embed_tokens.weight"],
            decoder.output.weight: weights["lm_head.weight"],
            decoder.norm.weight: weights["model.norm.weight"],
            layer.attention_norm.weight: given("input_layernorm"),
            layer.ffn_norm.weight: given("post_attention_layernorm"),
            layer.attention.wqkv.weight: torch.cat([given(f"self_attn.{x}_proj") for x in "qkv"]),
            layer.attention.wo.weight: given("self_attn.o_proj"),
            layer.feed_forward.w13.weight: torch.cat([given("mlp.gate_proj"), given("mlp.up_proj")]),
            layer.feed_forward.w2.weight: given("mlp.down_proj"),
        }
        assert all(torch.equal(parameter, tensor) for parameter, tensor in expected.items())
        assert not any(parameter.requires_grad for parameter in decoder.parameters())

    @pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
    @pytest.mark.parametrize("wanted", [torch.bfloat16, torch.float32])
    def test_number_formats_of_the_file_and_of_the_model(
        self, tmp_path: Path, stored: torch.dtype, wanted: torch.dtype
    ) -> None:
        weights = {name: tensor.to(stored) for name, tensor in random_weights(CONFIG).items()}
        save(tmp_path, weights)
        decoder = load(tmp_path, dtype=wanted)
        assert decoder.layers[0].attention.wo.weight.dtype is wanted
        assert torch.equal(
            decoder.layers[0].attention.wo.weight,
            weights["model.layers.0.self_attn.o_proj.weight"].to(wanted),
        )
        assert decoder.norm.weight.dtype is torch.float32
        assert decoder.output.weight.dtype is wanted

    def test_shards(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        weights = random_weights(CONFIG)
        save(tmp_path / "one", weights)
        save_sharded(tmp_path / "two", weights)
        assert len(weight_files(tmp_path / "two")) == 2
        one, two = load(tmp_path / "one").state_dict(), load(tmp_path / "two").state_dict()
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)

    @pytest.mark.parametrize("has_head", [False, True])
    def test_tied_embeddings_are_one_matrix_also_where_the_file_holds_a_copy(
        self, tmp_path: Path, has_head: bool
    ) -> None:
        weights = random_weights(TIED)
        if has_head:
            weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        save(tmp_path, weights)
        decoder = load(tmp_path, TIED)
        assert decoder.output.weight is decoder.tok_embeddings.weight
        assert torch.equal(decoder.output.weight, weights["model.embed_tokens.weight"])

    def test_constants_that_old_exporters_saved_are_passed_over(self, tmp_path: Path) -> None:
        save(
            tmp_path, random_weights(CONFIG) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
        )
        assert torch.equal(load(tmp_path).rotary.inv_freq[:1], torch.ones(1))

    def test_progress_counts_bytes_up_to_all(self, tmp_path: Path) -> None:
        save_sharded(tmp_path, random_weights(CONFIG))
        progress: list[tuple[int, int]] = []
        load(tmp_path, on_progress=lambda loaded, total: progress.append((loaded, total)))
        total = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
        assert progress == sorted(progress)
        assert {t for _, t in progress} == {total}
        assert progress[-1][0] == total


class TestRefusals:
    def refused(self, folder: Path, message: str, config: ModelConfig = CONFIG) -> None:
        with pytest.raises(UnsupportedCheckpoint, match=message):
            load(folder, config)

    def test_no_file(self, tmp_path: Path) -> None:
        self.refused(tmp_path, r"lacks model\.safetensors")

    @pytest.mark.parametrize(("missing", "more"), [([Q], ""), (["lm_head.weight", Q], " and 1 more")])
    def test_a_missing_tensor(self, tmp_path: Path, missing: list[str], more: str) -> None:
        weights = random_weights(CONFIG)
        save(tmp_path, {name: tensor for name, tensor in weights.items() if name not in missing})
        self.refused(tmp_path, f"lacks {missing[0]}{more}$")

    @pytest.mark.parametrize(
        "name",
        [
            "model.layers.0.self_attn.q_proj.bias",
            "model.layers.2.self_attn.q_proj.weight",
            "model.layers.0.self_attn.q_proj.weight_scale",
            "vision_tower.patch_conv.weight",
        ],
    )
    def test_a_tensor_that_nobody_knows(self, tmp_path: Path, name: str) -> None:
        save(tmp_path, random_weights(CONFIG) | {name: torch.ones(32)})
        self.refused(tmp_path, f"unknown tensor {name}")

    @pytest.mark.parametrize("shape", [(32, 31), (31, 32), (32,), (1, 32)])
    def test_a_tensor_of_another_shape(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        save(tmp_path, random_weights(CONFIG) | {Q: torch.ones(shape)})
        with pytest.raises(UnsupportedCheckpoint) as caught:
            load(tmp_path)
        assert str(caught.value) == f"{Q} has shape {shape}, but the configuration makes it (32, 32)"

    @pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.uint8, torch.bool, torch.float8_e4m3fn])
    def test_numbers_that_need_a_scale(self, tmp_path: Path, dtype: torch.dtype) -> None:
        save(tmp_path, random_weights(CONFIG) | {Q: torch.ones(32, 32).to(dtype)})
        self.refused(tmp_path, f"{Q} has dtype {dtype}, which is not supported")

    @pytest.mark.parametrize("damage", ["cut", "empty", "noise", "header"])
    def test_a_damaged_file(self, tmp_path: Path, damage: str) -> None:
        save(tmp_path, random_weights(CONFIG))
        file = tmp_path / "model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(
            {
                "cut": whole[:-100],
                "empty": b"",
                "noise": b"\xff" * 64,
                "header": whole[:8] + b"x" + whole[9:],
            }[damage]
        )
        self.refused(tmp_path, r"model\.safetensors is damaged")

    def test_a_missing_shard(self, tmp_path: Path) -> None:
        save_sharded(tmp_path, random_weights(CONFIG))
        (tmp_path / "model-00002-of-00002.safetensors").unlink()
        self.refused(tmp_path, r"lacks model-00002-of-00002\.safetensors")

    @pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/hostname", "sub/model.safetensors"])
    def test_an_index_that_points_outside(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {Q: name}}))
        self.refused(tmp_path, "names files outside its folder")

    @pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"weight_map": 3}'])
    def test_a_damaged_index(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "model.safetensors.index.json").write_text(content)
        self.refused(tmp_path, r"index\.json is damaged")


class TestEyes:
    CONFIG = ModelConfig.from_hf(MULTIMODAL_CONFIG | {"multimodal_projector_bias": True})

    def test_every_tensor_is_where_it_belongs(self, tmp_path: Path) -> None:
        weights = random_weights(self.CONFIG)
        save(tmp_path, weights)
        vision = load_network(tmp_path, self.CONFIG, dtype=torch.float32, device=CPU).vision
        assert vision is not None
        layer, projector = vision.encoder.layers[2], vision.projector

        def given(name: str) -> torch.Tensor:
            return weights[f"vision_tower.transformer.layers.2.{name}.weight"]

        expected = {
            vision.encoder.patch_conv.weight: weights["vision_tower.patch_conv.weight"],
            vision.encoder.ln_pre.weight: weights["vision_tower.ln_pre.weight"],
            layer.attention_norm.weight: given("attention_norm"),
            layer.ffn_norm.weight: given("ffn_norm"),
            layer.attention.wqkv.weight: torch.cat([given(f"attention.{x}_proj") for x in "qkv"]),
            layer.attention.wo.weight: given("attention.o_proj"),
            layer.feed_forward.w13.weight: torch.cat(
                [given("feed_forward.gate_proj"), given("feed_forward.up_proj")]
            ),
            layer.feed_forward.w2.weight: given("feed_forward.down_proj"),
        } | {
            parameter: weights[f"multi_modal_projector.{name}"]
            for name, parameter in {
                "norm.weight": projector.norm.weight,
                "patch_merger.merging_layer.weight": projector.merger.weight,
                "linear_1.weight": projector.w_in.weight,
                "linear_1.bias": projector.w_in.bias,
                "linear_2.weight": projector.w_out.weight,
                "linear_2.bias": projector.w_out.bias,
            }.items()
        }
        assert all(torch.equal(parameter, tensor) for parameter, tensor in expected.items())
        assert not any(parameter.requires_grad for parameter in vision.parameters())

    def test_matrices_have_the_number_format_that_is_wanted(self, tmp_path: Path) -> None:
        save(tmp_path, random_weights(self.CONFIG))
        network = load_network(tmp_path, self.CONFIG, dtype=torch.bfloat16, device=CPU)
        dtypes = {name: p.dtype for name, p in network.named_parameters() if p.ndim > 1 or "bias" in name}
        assert set(dtypes.values()) == {torch.bfloat16}

    @pytest.mark.parametrize(
        "name",
        [
            "multi_modal_projector.norm.weight",
            "multi_modal_projector.patch_merger.merging_layer.weight",
            "multi_modal_projector.linear_2.bias",
            "vision_tower.ln_pre.weight",
            "vision_tower.transformer.layers.1.attention.k_proj.weight",
        ],
    )
    def test_a_missing_tensor(self, tmp_path: Path, name: str) -> None:
        weights = random_weights(self.CONFIG)
        del weights[name]
        save(tmp_path, weights)
        with pytest.raises(UnsupportedCheckpoint, match=f"lacks {name}$"):
            load(tmp_path, self.CONFIG)

    @pytest.mark.parametrize(
        "name",
        [
            "vision_tower.transformer.layers.3.ffn_norm.weight",
            "vision_tower.patch_conv.bias",
            "multi_modal_projector.linear_3.weight",
            "image_newline",
            "language_model.model.layers.9.input_layernorm.weight",
        ],
    )
    def test_a_tensor_that_nobody_knows(self, tmp_path: Path, name: str) -> None:
        save(tmp_path, random_weights(self.CONFIG) | {name: torch.ones(16)})
        with pytest.raises(UnsupportedCheckpoint, match=f"unknown tensor {name}$"):
            load(tmp_path, self.CONFIG)


@pytest.mark.parametrize("differs", [False, True])
def test_a_head_that_differs_overrules_a_configuration_that_calls_it_tied(
    tmp_path: Path, differs: bool
) -> None:
    """Also across shards; one that does not differ takes no memory of its own."""
    weights = random_weights(TIED)
    head = weights["model.embed_tokens.weight"].clone()
    head[-1, -1] += differs
    save_sharded(tmp_path, weights | {"lm_head.weight": head})
    decoder = load(tmp_path, TIED)
    assert decoder.config.tied_embeddings is not differs
    assert (decoder.output.weight is decoder.tok_embeddings.weight) is not differs
    assert torch.equal(decoder.output.weight, head)
    assert torch.equal(decoder.tok_embeddings.weight, weights["model.embed_tokens.weight"])
