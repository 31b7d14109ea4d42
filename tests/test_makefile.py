"""The Makefile's promises that hold without installing anything."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that looks like a clone to make."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def make(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def fake_python(folder: Path, script: str) -> str:
    path = folder / "python-fake"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


def test_help_is_the_default_and_has_a_line_for_each_target_but_the_inner_one(folder: Path) -> None:
    done = make(folder)
    assert done.returncode == 0
    phony = re.findall(r"^\.PHONY: (.*)$", (folder / "Makefile").read_text(), re.MULTILINE)
    listed = re.findall(r"^  make ([a-z-]+) +\S", done.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(" ".join(phony).split())


def test_an_old_python_is_refused_by_name(folder: Path) -> None:
    python = fake_python(folder, '[ "$1" = --version ] && echo "Python 3.9.2" && exit; exit 1')
    done = make(folder, "install", python)
    assert done.returncode == 2
    assert "mezzo needs Python 3.11 or newer" in done.stderr
    assert "is Python 3.9.2." in done.stderr
    assert "make install PYTHON=python3.12" in done.stderr
    assert not (folder / ".venv").exists()


def test_an_interrupted_installation_is_done_again_and_a_finished_one_is_not(folder: Path) -> None:
    # An environment whose pip fails first and works then; each call leaves a line.
    (folder / ".venv" / "bin").mkdir(parents=True)
    pip = folder / ".venv" / "bin" / "python"
    pip.write_text("#!/bin/sh\necho called >> calls\n[ -e works ]\n")
    pip.chmod(0o755)
    assert make(folder, "install").returncode == 2
    (folder / "works").touch()
    for _ in range(3):
        assert make(folder, "install").returncode == 0
    assert (folder / "calls").read_text().split() == ["called", "called"]


def test_every_pin_is_exact_and_covers_each_direct_dependency() -> None:
    pins = {}
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert re.fullmatch(r"[0-9][0-9a-z.]*", version), line
            pins[name.replace("_", "-").lower()] = version
    text = (REPOSITORY / "pyproject.toml").read_text()
    required = {name.lower() for name in re.findall(r'"([A-Za-z][A-Za-z0-9-]*)>=', text)}
    # pip installs itself beforehand, and hatchling builds in an environment of its own.
    assert required - {"pip", "hatchling"} <= set(pins)
