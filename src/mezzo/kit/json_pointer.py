"""References within one JSON document: `#` and `#/a/0/b` (RFC 6901)."""

from __future__ import annotations

from typing import Any


def resolve(root: Any, ref: str) -> Any:
    """Return what `ref` points at within `root`; None for what is not there, or is in another document."""
    if not ref.startswith("#"):
        return None
    node = root
    for part in ref[1:].split("/")[1:]:
        step = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
        else:
            node = node.get(step) if isinstance(node, dict) else None
    return node
