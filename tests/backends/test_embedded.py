"""What the embedded backend finds out about a checkpoint before its engine has loaded it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests import tiny
from tests.prompt.mistral.tokenizers import write_tekken

from mezzo.backends.embedded import EmbeddedBackend
from mezzo.engine.client import EngineClient
from mezzo.engine.config import EngineConfig
from mezzo.model.config import UnsupportedCheckpoint
from mezzo.weights.folder import CheckpointFolder


def make_backend(folder: Path) -> EmbeddedBackend:
    client = EngineClient(EngineConfig(folder=str(folder)), max_queue=1, start_timeout_s=1)
    return EmbeddedBackend(CheckpointFolder(folder, "tiny", "tiny"), client, cache_secret=b"secret")


def write_folder(folder: Path, raw: dict[str, Any]) -> Path:
    """Write what a backend reads before the engine does: configuration and tokenizer."""
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    write_tekken(folder / "tekken.json", "v13")
    return folder


def with_eyes(**changes: Any) -> dict[str, Any]:
    raw = tiny.MULTIMODAL_CONFIG | {"image_token_index": 10}
    vision = raw["vision_config"] | {"patch_size": 14, "image_size": 1540}
    return raw | {"vision_config": vision} | changes


def test_a_network_with_eyes_and_a_format_with_images_see(tmp_path: Path) -> None:
    backend = make_backend(write_folder(tmp_path, with_eyes()))
    assert backend.info.capabilities == {"completion_chat", "vision", "function_calling", "reasoning"}


def test_a_format_with_images_is_no_use_to_a_network_without_eyes(tmp_path: Path) -> None:
    backend = make_backend(write_folder(tmp_path, tiny.HF_CONFIG))
    assert backend.info.capabilities == {"completion_chat", "function_calling", "reasoning"}


@pytest.mark.parametrize(
    ("changes", "of_network"),
    [({"image_token_index": 11}, "(11, 14, 2)"), ({"spatial_merge_size": 3}, "(10, 14, 3)")],
)
def test_a_tokenizer_and_a_network_that_disagree_about_images_are_refused(
    tmp_path: Path, changes: dict[str, Any], of_network: str
) -> None:
    folder = write_folder(tmp_path, with_eyes(**changes))
    with pytest.raises(UnsupportedCheckpoint) as refused:
        make_backend(folder)
    assert f"(10, 14, 2) in the tokenizer's files and {of_network} in the network's" in str(refused.value)
