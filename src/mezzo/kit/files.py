"""How a file is written so that a crash leaves the old one or the new one, and how it is fingerprinted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

READ_BYTES = 1 << 20


def sync_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON. Not atomic: for files of a folder that is published as a whole."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def replace_json(path: Path, value: Any) -> None:
    """Write JSON so that every reader, also after a crash, sees the old file or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write_json(partial, value)
        sync_to_disk(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_to_disk(path.parent)


def sha256_of_file(path: Path, advance: Callable[[int], None] = lambda num_bytes: None) -> str:
    """Compute a file's SHA-256 in hexadecimal; `advance` is called with the size of each part read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
            advance(len(part))
    return digest.hexdigest()
