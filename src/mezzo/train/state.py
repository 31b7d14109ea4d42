"""A run's state on the disk: safetensors and JSON, whole or not at all, so that a run goes on after any kill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mezzo.kit.files import sync_to_disk


def save_state(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer | None, facts: dict[str, Any]
) -> None:
    """Write parameters, the optimizer's moments and `facts` (JSON) to `path` in one step."""
    tensors: dict[str, Tensor] = {
        f"module.{name}": p.detach().contiguous() for name, p in module.state_dict().items()
    }
    if optimizer is not None:
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{key}": value.contiguous() for key, value in state.items()}
    replace_tensors(path, tensors, {"facts": json.dumps(facts)})


def replace_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file so that every reader, also after a crash, sees the old file or the new one whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    save_file(tensors, partial, metadata=metadata)
    sync_to_disk(partial)
    partial.replace(path)
    sync_to_disk(path.parent)


def load_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    """Fill a module, and an optimizer with the same parameters, from `path`. Returns the facts saved with them."""
    with safe_open(path, "pt") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["facts"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    module.load_state_dict({name[7:]: t for name, t in tensors.items() if name.startswith("module.")})
    if optimizer is not None:
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".", 2)
                moments.setdefault(int(number), {})[key] = tensor
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return facts
