"""What the README shows first is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sdk.serving import KEY, Serving

ROOT = Path(__file__).parents[2]


def test_the_first_example_prints_what_it_says(
    server: Serving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (expected,) = re.findall(r"print\(.*\)  # (.*)", example)
    monkeypatch.chdir(ROOT)
    exec(example.replace("mz-…", KEY).replace("http://127.0.0.1:8000", server.url), {})
    assert capsys.readouterr().out == expected + "\n"
