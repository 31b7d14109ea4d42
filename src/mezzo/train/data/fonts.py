"""The fonts of this machine, sorted out: which can write English, and which are kept for the held-out set.

Fonts are found, never shipped. Debian's `fonts-*` packages give hundreds; without any, those inside matplotlib's wheel
are there. A family is held out by its name alone, so every machine holds out the same ones.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

from fontTools.ttLib import TTFont, TTLibError
from PIL import ImageFont

Split = Literal["train", "held_out"]

_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/usr/share/texmf/fonts",
    "~/.fonts",
    "~/.local/share/fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "C:/Windows/Fonts",
)
_NEEDED = frozenset(map(ord, "".join(map(chr, range(33, 127)))))
# Not letters as people write them: ornaments, scripts whose Latin letters nobody could read, spaced-out test faces.
_UNSUITABLE = (
    "symbol", "dingbat", "ornament", "emoji", "icon", "math", "braille", "ancient", "irianis", "isabella",
    "rufscript", "ecolier", "d050000l", "standardsymbols", "barcode", "stencil", "music", "lastresort", "cjk",
    "aegean", "akkadian", "anatolian", "assyrian", "gardiner", "maya", "musica", "symbola", "textfonts", "analecta",
    "asea", "phon", "quercus", "ellhnikh", "emerita", "prophon", "babel", "jara", "alfa-beta", "smallcaps",
    "keyboard", "eemusic", "nilus", "abydos", "alfios", "anaktoria", "aroania", "atavyros", "avdira", "webdings",
    "wingdings",
)  # fmt: skip
_EVERYDAY = (
    "DejaVu Sans", "DejaVu Serif", "Liberation", "Noto Sans", "Noto Serif", "Open Sans", "Roboto", "Carlito", "Caladea",
    "FreeSans", "FreeSerif", "Inter", "Lato", "PT Sans", "PT Serif", "Nimbus", "TeX Gyre Heros", "TeX Gyre Termes",
    "Arial", "Helvetica", "Times", "Verdana", "Georgia", "Calibri", "Cantarell", "Linux Libertine O",
)  # fmt: skip
_SLANTED_OR_EXTREME = (
    "italic", "oblique", "black", "thin", "extralight", "heavy", "condensed", "narrow", "-it", "ri.",
)  # fmt: skip
_HELD_OUT_SHARE = 0.15


@dataclass(frozen=True)
class Face:
    """One style of one family: a file."""

    family: str
    path: str

    @property
    def split(self) -> Split:
        return "held_out" if share(self.family) < _HELD_OUT_SHARE else "train"


def share(name: str) -> float:
    """Map a name to a number from 0 to 1 that no machine and no run changes."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


Families = tuple[tuple[Face, ...], ...]
"""Families of fonts, each with its faces, sorted by name."""


class _Known:
    """What this process knows: to look into a thousand fonts takes half a minute, so processes tell each other."""

    families: Families | None = None


def families() -> Families:
    """Return the usable families of this machine, looked for on the first call."""
    if _Known.families is None:
        found: dict[str, list[Face]] = defaultdict(list)
        for path in _font_files():
            family = _usable_family(path)
            if family is not None:
                found[family].append(Face(family, str(path)))
        _Known.families = tuple(tuple(group) for _, group in sorted(found.items()))
    return _Known.families


def remember(found: Families | None) -> None:
    """Take the families that another process has found, or with None look anew."""
    _Known.families = found
    faces.cache_clear()
    _everyday_faces.cache_clear()


@cache
def faces(split: Split) -> Families:
    """Return the usable families of a split. Raises: LookupError where the machine has none."""
    chosen = tuple(group for group in families() if group[0].split == split)
    if not chosen:
        kept = " of those that are kept for the examination" if split == "held_out" else ""
        raise LookupError(
            f"no fonts{kept} that can write English were found; install some, such as Debian's fonts-dejavu"
        )
    return chosen


def random_face(rng: random.Random, split: Split) -> Face:
    """Choose a family, then one of its faces: a family with forty styles weighs no more than one with two."""
    return rng.choice(rng.choice(faces(split)))


@cache
def _everyday_faces(split: Split) -> Families:
    upright = [
        tuple(
            face
            for face in family
            if not any(word in Path(face.path).name.lower() for word in _SLANTED_OR_EXTREME)
        )
        for family in faces(split)
        if family[0].family.startswith(_EVERYDAY)
    ]
    return tuple(family for family in upright if family) or faces(split)


def everyday_face(rng: random.Random, split: Split) -> Face:
    """Choose an upright face of a typeface that documents are usually set in; any face where there is none."""
    return rng.choice(rng.choice(_everyday_faces(split)))


@lru_cache(maxsize=4096)
def load(path: str, size: int) -> ImageFont.FreeTypeFont:
    """Open a font at `size` pixels per em."""
    return ImageFont.truetype(path, size)


def _font_files() -> list[Path]:
    found = [
        path
        for folder in map(Path, _FOLDERS)
        for path in sorted(folder.expanduser().rglob("*"))
        if path.suffix.lower() in (".ttf", ".otf")
    ]
    return found + _packaged_fonts()


def _packaged_fonts() -> list[Path]:
    try:
        import matplotlib  # noqa: PLC0415 - its wheel has fonts; it is not needed to draw pictures
    except ImportError:
        return []
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return sorted(path for path in folder.glob("DejaVu*.ttf") if "Display" not in path.name)


def _usable_family(path: Path) -> str | None:
    if any(word in "/".join(path.parts[-2:]).lower().replace(" ", "") for word in _UNSUITABLE):
        return None
    try:
        with path.open("rb") as file, TTFont(file, lazy=True, fontNumber=0) as font:
            covered = font.getBestCmap() or {}
            name = font["name"].getBestFamilyName() or path.stem
    except (TTLibError, OSError, KeyError, AssertionError, ValueError):
        return None
    if not covered.keys() >= _NEEDED:
        return None
    # Each script of Noto has a family of its own, and nearly the same Latin letters in it.
    words = name.split()
    return " ".join(words[:2]) if words[0] == "Noto" else name
