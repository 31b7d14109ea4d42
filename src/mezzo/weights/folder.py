"""What a checkpoint folder is, and whether one is whole. Reads names and sizes, never tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "mezzo.json"
INDEX = "model.safetensors.index.json"
NATIVE_INDEX = "consolidated.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tekken.json", "tokenizer.model*")
COMPANIONS = (
    *TOKENIZERS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template*",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "SYSTEM_PROMPT.txt",
)
"""Files beside the weights that say how a model is talked to, as patterns."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_NUMBERED = re.compile(r"(\w+)-\d{5}-of-(\d{5})\.safetensors")


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder with a configuration, a tokenizer and *.safetensors, whole at the time it was looked at.

    Either in the Hugging Face layout, with config.json, or in Mistral's own, with params.json and consolidated*.

    name          short name for people and cards: `nano`, `ORG/NAME`, or the folder's own
    description   one line for people, e.g. `SmolLM2-135M-Instruct (Apache-2.0)`
    """

    path: Path
    name: str
    description: str


def missing_files(path: Path) -> list[str]:
    """Name what keeps a folder from being a checkpoint; an empty list means that it is one."""
    missing = []
    if not any((path / name).is_file() for name in ("config.json", "params.json")):
        missing.append("config.json")
    if not any(file.is_file() for pattern in TOKENIZERS for file in path.glob(pattern)):
        missing.append("tokenizer.json")
    index = next((path / name for name in (INDEX, NATIVE_INDEX) if (path / name).is_file()), None)
    if (path / "model.safetensors").is_file() and index != path / INDEX:
        return missing
    if index is not None:
        missing += [shard for shard in _shards(index) if not (path / shard).is_file()]
    elif not any(path.glob("*.safetensors")):
        missing.append("*.safetensors")
    else:
        missing += missing_of_series(file.name for file in path.glob("*.safetensors"))
    return missing


def missing_of_series(names: Iterable[str]) -> list[str]:
    """Name the files that a numbered series, `consolidated-00001-of-00003.safetensors` and so on, lacks."""
    names = set(names)
    series = {(match[1], match[2]) for name in names if (match := _NUMBERED.fullmatch(name))}
    wanted = [
        f"{stem}-{number:05}-of-{last}.safetensors"
        for stem, last in sorted(series)
        for number in range(1, int(last) + 1)
    ]
    return [name for name in wanted if name not in names]


def companion_files(path: Path) -> list[str]:
    """List the files of a folder that go along when its weights are written somewhere else."""
    return sorted({file.name for pattern in COMPANIONS for file in path.glob(pattern) if file.is_file()})


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
        return [f"a readable {index.name}"]
    return sorted(shards)
