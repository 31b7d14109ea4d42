"""A small language model that learns to see, and fonts that every machine with mezzo's extra `train` has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mezzo.train.data import fonts
from tests.train.small import packaged_families, write_language


@pytest.fixture(scope="session")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint folder of a tiny model of text."""
    return write_language(tmp_path_factory.mktemp("language"))


@pytest.fixture
def packaged_fonts() -> Iterator[None]:
    """Know of no fonts but those inside matplotlib's wheel, here and in the processes that draw."""
    before = fonts._Known.families
    fonts.remember(packaged_families())
    yield
    fonts.remember(before)
