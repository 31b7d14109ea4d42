"""docs/nano.md says what the files beside it say, and what it shows is there."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
NANO = ROOT / "docs" / "nano"


@pytest.fixture(scope="module")
def nano_doc() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nano_doc", ROOT / "scripts" / "nano_doc.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_card_is_what_the_script_writes(nano_doc: ModuleType) -> None:
    assert (ROOT / "docs" / "nano.md").read_text("utf-8") == nano_doc.page()


def test_the_card_shows_pictures_that_are_there(nano_doc: ModuleType) -> None:
    shown = re.findall(r"\]\((nano/[^)]*\.png)\)", nano_doc.page())
    assert len(shown) >= 12
    for name in shown:
        with Image.open(ROOT / "docs" / name) as image:
            assert np.asarray(image.convert("L")).std() > 1


def test_the_failures_are_failures() -> None:
    results = json.loads((NANO / "results.json").read_text("utf-8"))
    assert len(results["failures"]) == 10
    assert all(failure["said"] != failure["expected"] for failure in results["failures"])
    assert all(line["right"] <= line["of"] for line in results["accuracy"].values())
