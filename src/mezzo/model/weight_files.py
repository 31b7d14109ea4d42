"""Which files of a checkpoint folder hold its weights, and in whose layout they are.

    hf        model.safetensors, or shards listed in model.safetensors.index.json
    mistral   consolidated.safetensors, or consolidated-00001-of-00003.safetensors and so on, with or without
              consolidated.safetensors.index.json, or the older consolidated.00.safetensors and so on

Official repositories hold both, the same weights twice: then `hf` is taken. Reads names, never tensors.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from mezzo.model.errors import UnsupportedCheckpoint

LayoutName = Literal["hf", "mistral"]
STEMS: dict[LayoutName, str] = {"hf": "model", "mistral": "consolidated"}
_NUMBERED = re.compile(r"consolidated-(\d{5})-of-(\d{5})\.safetensors")
_OLD = re.compile(r"consolidated\.(\d{2})\.safetensors")


def weight_layout(folder: Path) -> LayoutName:
    """Tell whose layout a folder's weights are in; `hf` for a folder without weights."""
    return "mistral" if not _has_hf(folder) and any(folder.glob("consolidated*.safetensors*")) else "hf"


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, once each.

    Raises: UnsupportedCheckpoint if there are none, one of a series is missing, or the index is damaged or names a
    file that is not there.
    """
    stem = STEMS[weight_layout(folder)]
    whole = f"{stem}.safetensors"
    if (index := folder / f"{whole}.index.json").is_file():
        names = _listed(index)
    elif stem == "consolidated" and not (folder / whole).exists():
        names = _series(folder)
    else:
        names = [whole]
    for name in names:
        if not _is_file(folder / name):
            raise UnsupportedCheckpoint(f"{folder} lacks {name}")
    return [folder / name for name in names]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _has_hf(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json"))


def _listed(index: Path) -> list[str]:
    try:
        names = sorted({str(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnsupportedCheckpoint(f"{index} is damaged: {error!r}") from error
    if not names:
        raise UnsupportedCheckpoint(f"{index} is damaged: it lists no files")
    if any(Path(name).name != name for name in names):
        raise UnsupportedCheckpoint(f"{index} names files outside its folder")
    return names


def _series(folder: Path) -> list[str]:
    """Name all files of the numbered series that the folder has some of."""
    found = sorted(path.name for path in folder.glob("consolidated*.safetensors"))
    numbered = [match for name in found if (match := _NUMBERED.fullmatch(name))]
    if numbered:
        last = max(match[2] for match in numbered)
        return [f"consolidated-{i:05}-of-{last}.safetensors" for i in range(1, int(last) + 1)]
    old = [int(match[1]) for name in found if (match := _OLD.fullmatch(name))]
    if not old:
        raise UnsupportedCheckpoint(f"{folder} lacks consolidated.safetensors")
    return [f"consolidated.{i:02}.safetensors" for i in range(max(old) + 1)]
