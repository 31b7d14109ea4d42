"""The log of a run: one JSON object a line, appended to, and true again after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; one that a kill cut off is left out."""
    lines = []
    for line in path.read_text("utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def forget_lines_after(path: Path, step: int) -> list[dict[str, Any]]:
    """Take what a killed run wrote after its last saved step out of the log: it is going to be written again.

    Returns the lines that are left.
    """
    if not path.exists():
        return []
    kept = [line for line in read_log(path) if line["step"] <= step]
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
    partial.replace(path)
    return kept
