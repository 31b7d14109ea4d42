"""One tiny random model for all tests of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from mezzo.model.decoder import Decoder
from tests import tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def decoder(tiny_folder: Path) -> Decoder:
    return tiny.load(tiny_folder)
