"""What a checkpoint folder is, and whether one is whole. Reads names and sizes, never tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "mezzo.json"
INDEX = "model.safetensors.index.json"
REQUIRED = ("config.json", "tokenizer.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder with config.json, tokenizer.json and *.safetensors, whole at the time it was looked at.

    name          short name for people and cards: `nano`, `ORG/NAME`, or the folder's own
    description   one line for people, e.g. `SmolLM2-135M-Instruct (Apache-2.0)`
    """

    path: Path
    name: str
    description: str


def missing_files(path: Path) -> list[str]:
    """Name what keeps a folder from being a checkpoint; an empty list means that it is one."""
    missing = [name for name in REQUIRED if not (path / name).is_file()]
    index = path / INDEX
    if index.is_file():
        missing += [shard for shard in _shards(index) if not (path / shard).is_file()]
    elif not any(path.glob("*.safetensors")):
        missing.append("*.safetensors")
    return missing


def holds_only_pickles(path: Path) -> bool:
    """Tell whether the folder's weights are in a format that can run code when it is loaded."""
    return not any(path.glob("*.safetensors")) and any(any(path.glob(pattern)) for pattern in PICKLES)


def described(path: Path, *, name: str) -> str:
    """Return the description in the folder's manifest, or `name` for a folder that mezzo did not make."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return str(manifest["description"])
    except (OSError, ValueError, KeyError, TypeError):
        return name


def _shards(index: Path) -> list[str]:
    """List the files an index names, once each; an index that cannot be read is itself what is missing."""
    try:
        shards = {
            str(shard) for shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"a readable {INDEX}"]
    return sorted(shards)
