"""docs/compatibility.md names a test for every difference; each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "compatibility.md"
NAMED = sorted(set(re.findall(r"`((?:[a-z_]+/)+test_[a-z_]+\.py(?:::\w+)*)`", PAGE.read_text("utf-8"))))


def test_page_names_tests() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize("name", NAMED)
def test_named_test_exists(name: str) -> None:
    path, *inside = name.split("::")
    body = ast.parse((TESTS / path).read_text("utf-8")).body
    for part in inside:
        (found,) = [
            node for node in body if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == part
        ]
        body = found.body
