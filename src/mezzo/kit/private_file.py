"""Small files that only their owner may read, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` with mode 0600, replacing what was there in one step.

    A reader, or a crash at any moment, finds the old file or the new one, never a part. Missing parent
    folders are made with mode 0700. Raises: OSError (the old file then stands, nothing else is left behind).
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only within one file system. mkstemp creates with 0600.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
