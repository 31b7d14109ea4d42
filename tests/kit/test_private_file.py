"""Private files are whole or absent."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mezzo.kit.private_file import write_private


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_the_file_is_replaced_and_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "secret"
    write_private(path, "one")
    path.chmod(0o644)
    write_private(path, "two")
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(path.parent) == ["secret"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "half \ud800")  # a lone surrogate has no UTF-8
    assert path.read_text() == "old"
    assert names(tmp_path) == ["secret"]


def test_a_failed_replacement_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "occupied"
    path.mkdir()
    with pytest.raises(OSError, match="occupied"):
        write_private(path, "text")
    assert names(tmp_path) == ["occupied"]
