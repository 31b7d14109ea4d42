"""Which prompt encoder a folder gets, and what nobody pays for who serves another model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mezzo.prompt.load import load_encoder
from mezzo.prompt.mistral.encoder import MistralEncoder
from mezzo.prompt.mistral.files import mistral_tokenizer_file
from mezzo.prompt.template_encoder import TemplateEncoder
from tests.prompt.mistral.tokenizers import SENTENCEPIECE, tokenizer_file
from tests.prompt.test_template_encoder import write


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ([], None),
        (
            ["tokenizer.json", "tokenizer.model"],
            None,
        ),  # a copy for transformers: its version is anyone's guess
        (["tokenizer.model", "params.json"], "tokenizer.model"),
        (["tekken.json", "tokenizer.model.v7", "tokenizer.json"], "tekken.json"),
        (["tokenizer.model.v3", "tokenizer.model", "params.json"], "tokenizer.model.v3"),
        (["tokenizer.model.v3", "x.model.v11", "tokenizer.model.v7"], "x.model.v11"),
        (["tokenizer.model.v7m1"], "tokenizer.model.v7m1"),
        (["tokenizer.model.v7.bak", "tokenizer.model.vision"], None),
    ],
)
def test_the_tokenizer_file_of_a_folder(tmp_path: Path, names: list[str], chosen: str | None) -> None:
    for name in names:
        (tmp_path / name).write_text("")
    found = mistral_tokenizer_file(tmp_path)
    assert (found and found.name) == chosen


def test_mistral_s_own_files_come_first(tmp_path: Path) -> None:
    write(tmp_path)
    assert isinstance(load_encoder(tmp_path), TemplateEncoder)
    shutil.copy(tokenizer_file("tekken-v13"), tmp_path / "tekken.json")
    encoder = load_encoder(tmp_path)
    assert isinstance(encoder, MistralEncoder)
    assert encoder.version == "v13"
    assert encoder.capabilities == {"function_calling", "completion_fim", "vision", "reasoning"}


def test_a_plain_sentencepiece_model_is_the_first_version(tmp_path: Path) -> None:
    shutil.copy(SENTENCEPIECE["v1"], tmp_path / "tokenizer.model")
    (tmp_path / "params.json").write_text("{}")
    encoder = load_encoder(tmp_path)
    assert isinstance(encoder, MistralEncoder)
    assert encoder.version == "v1"


def test_other_models_do_not_import_mistral_common(tmp_path: Path) -> None:
    program = (
        "import sys, mezzo.backends.embedded; from pathlib import Path; from mezzo.prompt.load import load_encoder\n"
        f"load_encoder(Path({str(write(tmp_path))!r}))\n"
        "assert not {'mistral_common', 'sentencepiece', 'tiktoken', 'jsonschema', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
