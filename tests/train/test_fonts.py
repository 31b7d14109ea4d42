"""Which fonts are drawn with, and which are kept for the examination."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest

from mezzo.train.data import fonts
from mezzo.train.data.fonts import Face, share
from tests.train.small import packaged_families

PACKAGED = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of a machine that has no other fonts."""
    before = fonts._Known.families
    monkeypatch.setattr(fonts, "_FOLDERS", (str(tmp_path),))
    monkeypatch.setattr(fonts, "_packaged_fonts", list)
    fonts.remember(None)
    yield tmp_path
    fonts.remember(before)


def names(split: fonts.Split) -> list[str]:
    return [family[0].family for family in fonts.faces(split)]


@pytest.mark.usefixtures("packaged_fonts")
def test_a_family_is_of_one_split_by_its_name() -> None:
    assert names("train") == ["DejaVu Sans", "DejaVu Sans Mono"]
    assert names("held_out") == ["DejaVu Serif"]
    assert share("DejaVu Serif") == pytest.approx(0.13124, abs=1e-5)  # no machine and no version changes it
    for family in packaged_families():
        assert {face.split for face in family} == {family[0].split}


def test_about_a_sixth_is_held_out() -> None:
    held_out = [Face(f"Family {number}", "").split for number in range(2000)].count("held_out")
    assert 0.12 < held_out / 2000 < 0.18


@pytest.mark.usefixtures("packaged_fonts")
def test_faces_of_a_split_are_chosen_from_it() -> None:
    rng = random.Random(1)
    assert {fonts.random_face(rng, "held_out").family for _ in range(20)} == {"DejaVu Serif"}
    assert {fonts.random_face(rng, "train").family for _ in range(40)} == {"DejaVu Sans", "DejaVu Sans Mono"}
    everyday = {Path(fonts.everyday_face(rng, "train").path).name for _ in range(60)}
    assert everyday == {
        "DejaVuSans.ttf",
        "DejaVuSans-Bold.ttf",
        "DejaVuSansMono.ttf",
        "DejaVuSansMono-Bold.ttf",
    }


def test_a_machine_without_fonts_says_so(machine: Path) -> None:
    for split in ("train", "held_out"):
        with pytest.raises(LookupError, match=r"no fonts.* that can write English were found; install some"):
            fonts.faces(split)


def test_a_machine_that_has_none_to_hold_out_says_so(machine: Path) -> None:
    shutil.copy(PACKAGED / "DejaVuSans.ttf", machine)
    assert names("train") == ["DejaVu Sans"]
    with pytest.raises(LookupError, match="no fonts of those that are kept for the examination"):
        fonts.faces("held_out")


def test_files_that_write_no_english_are_left_out(machine: Path) -> None:
    shutil.copy(PACKAGED / "DejaVuSans.ttf", machine)
    shutil.copy(PACKAGED / "STIXSizOneSymReg.ttf", machine / "plain.ttf")  # brackets and no letters
    shutil.copy(PACKAGED / "DejaVuSerif.ttf", machine / "MySymbols.ttf")
    (machine / "broken.ttf").write_bytes(b"no font")
    (machine / "empty.otf").touch()
    (machine / "notes.txt").write_text("no font")
    assert fonts.families() == ((Face("DejaVu Sans", str(machine / "DejaVuSans.ttf")),),)


def test_fonts_are_looked_for_once(machine: Path) -> None:
    assert fonts.families() == ()
    shutil.copy(PACKAGED / "DejaVuSans.ttf", machine)
    assert fonts.families() == ()
    fonts.remember(None)
    assert len(fonts.families()) == 1
