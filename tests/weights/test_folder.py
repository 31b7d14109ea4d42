"""Whether a folder is a whole checkpoint, in the Hugging Face layout or in Mistral's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mezzo.weights import companion_files
from mezzo.weights.folder import missing_files

ONE, TWO = "consolidated-00001-of-00002.safetensors", "consolidated-00002-of-00002.safetensors"
HF_ONE, HF_TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
HF_INDEX, NATIVE_INDEX = "model.safetensors.index.json", "consolidated.safetensors.index.json"


def fill(folder: Path, names: list[str]) -> Path:
    for name in names:
        stem = name.partition(".")[0]
        shards = {"one": f"{stem}-00001-of-00002.safetensors", "two": f"{stem}-00002-of-00002.safetensors"}
        (folder / name).write_text(json.dumps({"weight_map": shards}) if name.endswith("index.json") else "")
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ["config.json", "tokenizer.json", "model.safetensors"],
        ["config.json", "tekken.json", HF_INDEX, HF_ONE, HF_TWO],
        ["params.json", "tekken.json", "consolidated.safetensors"],
        ["params.json", "tokenizer.model.v3", "consolidated.safetensors"],
        ["params.json", "tokenizer.model", ONE, TWO],
        ["params.json", "tekken.json", NATIVE_INDEX, ONE, TWO],
        ["params.json", "tekken.json", "consolidated.00.safetensors"],
        ["config.json", "params.json", "tokenizer.json", "tekken.json", "model.safetensors", NATIVE_INDEX],
    ],
)
def test_whole(tmp_path: Path, names: list[str]) -> None:
    assert missing_files(fill(tmp_path, names)) == []


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ([], ["config.json", "tokenizer.json", "*.safetensors"]),
        (["tekken.json", "consolidated.safetensors"], ["config.json"]),
        (["params.json", "consolidated.safetensors"], ["tokenizer.json"]),
        (["params.json", "tekken.json"], ["*.safetensors"]),
        (["params.json", "tekken.json", TWO], [ONE]),
        (["params.json", "tekken.json", NATIVE_INDEX, ONE], [TWO]),
        (["config.json", "tokenizer.json", HF_INDEX, HF_TWO], [HF_ONE]),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, names: list[str], missing: list[str]) -> None:
    assert missing_files(fill(tmp_path, names)) == missing


def test_companions_are_what_says_how_a_model_is_talked_to(tmp_path: Path) -> None:
    wanted = [
        "SYSTEM_PROMPT.txt",
        "chat_template.jinja",
        "generation_config.json",
        "tekken.json",
        "tokenizer.model.v3",
    ]
    fill(tmp_path, [*wanted, "config.json", "params.json", "model.safetensors", "README.md", "code.py"])
    assert companion_files(tmp_path) == wanted
