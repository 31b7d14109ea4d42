"""The folder of a run: whose it is. A run that goes on must be the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mezzo.kit.files import replace_json
from mezzo.train.errors import CannotTrain

_RUN = "run.json"


def claim_folder(folder: Path, begun_with: dict[str, Any]) -> dict[str, Any]:
    """Make `folder` that of a run, unless it is already. Returns what its run was begun with.

    Raises: CannotTrain for a folder with other things in it; OSError.
    """
    path = folder / _RUN
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if folder.is_dir() and any(folder.iterdir()):
            raise CannotTrain(f"{folder} is not empty and holds no run") from None
        replace_json(path, begun_with)
        return begun_with
    return found
