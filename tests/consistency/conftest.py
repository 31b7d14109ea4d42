"""Models for comparing fast paths with slow ones: three shapes, each with its own attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny

SHAPES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "window": {"model_type": "mistral", "sliding_window": 21, "num_key_value_heads": 1},
    "ministral3": {
        "model_type": "ministral3",
        "num_key_value_heads": 4,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 32,
            "llama_4_scaling_beta": 0.1,
        },
    },
}


@pytest.fixture(scope="session", params=SHAPES)
def shape_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp(request.param), **SHAPES[request.param])
