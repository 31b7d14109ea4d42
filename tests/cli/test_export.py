"""`mezzo export`: a folder for other programs, or one line that says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mezzo.cli.export import parse_size
from mezzo.cli.output import CommandFailed
from tests.cli.conftest import Run
from tests.tiny import write_checkpoint


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write_checkpoint(tmp_path / "source")
    (folder / "tokenizer.json").write_text('{"mine": true}')
    return folder


def test_a_folder_that_others_load(mezzo: Run, source: Path, tmp_path: Path) -> None:
    done = mezzo("export", str(source), "out", "--max-shard-size", "20KB")
    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr
    assert "Writing out" in done.stderr
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["architectures"], config["dtype"]) == (["LlamaForCausalLM"], "bfloat16")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"mine": true}'
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()


def test_the_native_layout_is_weights_again(mezzo: Run, source: Path, tmp_path: Path) -> None:
    done = mezzo("export", str(source), "out", "--layout", "mistral", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"params.json", "consolidated.safetensors", "tokenizer.json"}
    assert mezzo("export", "out", "back").returncode == 0


def test_a_folder_that_is_taken_is_left_alone(mezzo: Run, source: Path) -> None:
    before = {path: path.read_bytes() for path in source.iterdir()}
    done = mezzo("export", str(source), str(source))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {source} is not empty\n"
    assert {path: path.read_bytes() for path in source.iterdir()} == before


def test_weights_that_are_not_supported_are_named(mezzo: Run, source: Path, tmp_path: Path) -> None:
    (source / "config.json").write_text('{"model_type": "mamba"}')
    done = mezzo("export", str(source), "out")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: model type 'mamba' is not supported")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("500 mb", 5 * 10**8), ("12", 12), ("3kB", 3000)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1.5GB", "0", "5 apples"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(CommandFailed, match=r"--max-shard-size .* is no size"):
        parse_size(text)
