"""Files of strangers: whatever is in them, a checkpoint loads or is refused in one line, and takes no memory before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig, UnsupportedCheckpoint
from mezzo.model.tensor_file import read_header
from tests.model.layouts import EYES, TEXT, hf_weights, write

YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
HUGE = 10**12


def refusal(folder: Path) -> str:
    with pytest.raises(UnsupportedCheckpoint) as caught:  # noqa: PT012  either of the two may refuse
        config = ModelConfig.from_folder(folder)
        load_network(folder, config, dtype=torch.float32, device=torch.device("cpu"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": HUGE}, "vocab_size must be at most"),
        ({"hidden_size": 10**30}, "dim must be at most"),
        ({"intermediate_size": 2**31 - 1}, "has shape"),
        ({"num_hidden_layers": 10**9}, "and the configuration 1000000000 layers"),
        ({"rms_norm_eps": float("nan")}, "norm_eps must be a finite number"),
        ({"rms_norm_eps": -1}, "norm_eps must be at least 0"),
        ({"sliding_window": True}, "sliding_window must be a whole number"),
        ({"sliding_window": 1.5}, "sliding_window must be a whole number"),
        ({"model_type": []}, "model type [] is not supported"),
        ({"rope_parameters": YARN | {"rope_theta": 1.0}}, "rope theta must not be 1"),
        ({"rope_parameters": YARN | {"rope_theta": -1}}, "rope theta must be above 0"),
        ({"rope_parameters": {"rope_theta": float("nan")}}, "rope theta must be a finite number"),
        ({"rope_parameters": YARN | {"beta_fast": float("inf")}}, "rope beta_fast must be a finite number"),
        ({"rope_parameters": YARN | {"beta_slow": -1}}, "rope beta_slow must be above 0"),
        ({"rope_parameters": YARN | {"factor": float("nan")}}, "rope factor must be a finite number"),
        ({"rope_parameters": YARN | {"attention_factor": "5"}}, "rope attention_factor must be a finite"),
        ({"rope_parameters": YARN | {"mscale": []}}, "rope mscale must be a finite number"),
        (
            {"rope_parameters": YARN | {"original_max_position_embeddings": -1}},
            "rope original_max_positions must be at least 1",
        ),
    ],
)
def test_a_configuration_that_cannot_be_computed(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refusal(write(tmp_path / "x", TEXT | changes, {"model.safetensors": hf_weights(TEXT)}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_size": HUGE}, "vision patch_size must be at most"),
        ({"num_hidden_layers": 10**9}, "layers"),
        ({"rope_theta": -1.0}, "vision rope_theta must be above 0"),
        ({"rope_theta": float("nan")}, "vision rope_theta must be a finite number"),
    ],
)
def test_eyes_that_cannot_be_computed(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    raw = EYES | {"vision_config": EYES["vision_config"] | changes}
    assert words in refusal(write(tmp_path / "x", raw, {"model.safetensors": hf_weights(EYES)}))


def test_a_processor_file_nested_too_deeply(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", EYES, {"model.safetensors": hf_weights(EYES)})
    (folder / "processor_config.json").write_text('{"a":' * 100_000)
    assert "processor_config.json cannot be read" in refusal(folder)


def test_an_index_with_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", TEXT, {"model.safetensors": hf_weights(TEXT)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x" * 300}}))
    assert "lacks xxx" in refusal(folder)


def test_names_of_a_strangers_file_are_shown_on_one_line(tmp_path: Path) -> None:
    weights = hf_weights(TEXT) | {"evil\nTraceback\x1b[31m" + "x" * 5000: torch.zeros(1)}
    message = refusal(write(tmp_path / "x", TEXT, {"model.safetensors": weights}))
    assert message.startswith("unknown tensor evil\\nTraceback\\x1b[31mxxx")
    assert len(message) <= 1001


@pytest.mark.parametrize("shape", [[10**4000] * 2000, [2**63] * 3, [1] * 40])
def test_a_header_with_shapes_beyond_reason(tmp_path: Path, shape: list[int]) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": ["SIZE"] * len(shape), "data_offsets": [0, 4]}})
    text = header.replace('"SIZE"', str(shape[0]) if shape[0] < 10**100 else "1" + "0" * 4000).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(UnsupportedCheckpoint, match="a has a shape or offsets that are no sizes"):
        read_header(path)
