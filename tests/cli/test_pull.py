"""`mezzo pull`: the folder on stdout, and failures in two lines."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run


def checkpoint(folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def test_the_folder_is_printed_alone_on_stdout(mezzo: Run, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "tiny")
    done = mezzo("pull", str(folder))
    assert (done.returncode, done.stdout) == (0, f"{folder}\n")
    assert "tiny" in done.stderr


def test_without_an_argument_it_pulls_what_the_settings_serve(mezzo: Run, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "tiny")
    (tmp_path / "mezzo.toml").write_text('weights = "tiny"\n')
    assert mezzo("pull").stdout == f"{folder}\n"


def test_unknown_weights_are_one_error_and_what_to_do(mezzo: Run) -> None:
    done = mezzo("pull", "no such thing")
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("error: There are no weights called 'no such thing'")
    assert "nano" in second
