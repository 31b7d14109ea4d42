"""Where a checkpoint folder has its tokenizer in Mistral's own format."""

from __future__ import annotations

import re
from pathlib import Path

_SENTENCEPIECE = re.compile(r".*\.model\.v(\d+)(m\d+)?")


def mistral_tokenizer_file(folder: Path) -> Path | None:
    """Return the tokenizer file, None if the folder has none in this format.

    `tekken.json` comes first, then the SentencePiece model of the highest version, as the reference chooses. A plain
    `tokenizer.model` says nothing about its format; beside a `params.json` it is Mistral's first version.
    """
    if (tekken := folder / "tekken.json").is_file():
        return tekken
    versions = [
        (int(match[1]), file)
        for file in folder.glob("*.model.v*")
        if (match := _SENTENCEPIECE.fullmatch(file.name)) and file.is_file()
    ]
    if versions:
        return max(versions)[1]
    plain = folder / "tokenizer.model"
    return plain if plain.is_file() and (folder / "params.json").is_file() else None
