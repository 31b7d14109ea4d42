"""Files are replaced whole; fingerprints are the usual ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mezzo.kit.files import replace_json, sha256_of_file


def test_replace_json_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "record.json"
    replace_json(path, {"x": 1})
    replace_json(path, {"x": "ü"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"x": "ü"}
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


def test_replace_json_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    replace_json(path, {"x": 1})
    with pytest.raises(TypeError):
        replace_json(path, {"x": object()})
    assert json.loads(path.read_text()) == {"x": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_sha256_of_file_reads_everything_and_reports_it(tmp_path: Path) -> None:
    data = b"mezzo" * 500_000
    (tmp_path / "data").write_bytes(data)
    parts: list[int] = []
    assert sha256_of_file(tmp_path / "data", parts.append) == hashlib.sha256(data).hexdigest()
    assert sum(parts) == len(data)
    assert len(parts) > 1
