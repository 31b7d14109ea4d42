"""Grammars tried out in a process that may die of them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from mezzo.engine.grammar_checker import TOO_COMPLEX, GrammarChecker
from mezzo.engine.grammar_errors import GrammarError
from mezzo.prompt.json_schema import json_rule

# None of the limits of the library catches these two.
ENDLESS: dict[str, dict[str, Any]] = {
    "patterns that match together": {
        "type": "string",
        "allOf": [{"pattern": f"x{i}.*y{i}"} for i in range(40)],
    },
    "a large prime": {"type": "integer", "multipleOf": 999_983},
}


@pytest.fixture(scope="module")
def checker() -> Iterator[GrammarChecker]:
    checker = GrammarChecker()
    yield checker
    checker.stop()


def rule(schema: dict[str, Any]) -> str:
    return f"start: {json_rule(schema)}"


@pytest.mark.parametrize("schema", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_takes_for_ever_is_given_up_once_and_others_go_on(
    checker: GrammarChecker, schema: dict[str, Any]
) -> None:
    with pytest.raises(GrammarError, match=TOO_COMPLEX):
        checker.check(rule(schema))
    before = time.perf_counter()
    with pytest.raises(GrammarError, match=TOO_COMPLEX):
        checker.check(rule(schema))
    assert time.perf_counter() - before < 0.5, "it was tried again"
    checker.check(rule({"type": "string"}), '"a')


def test_reasons_and_beginnings_are_told(checker: GrammarChecker) -> None:
    with pytest.raises(GrammarError, match="contains"):
        checker.check(rule({"type": "array", "contains": {}}))
    with pytest.raises(GrammarError, match="what the answer begins with does not fit"):
        checker.check(rule({"type": "string", "maxLength": 2}), json.dumps("äöü\n"))
    checker.check(rule({"type": "string", "maxLength": 4}), json.dumps("äöü\n", ensure_ascii=False))


def test_its_process_can_be_killed(checker: GrammarChecker) -> None:
    checker.check(rule({"enum": [1]}))
    assert checker.process_id is not None
    os.kill(checker.process_id, signal.SIGKILL)
    with suppress(GrammarError):  # the one that it was killed under is lost, if there was one
        checker.check(rule({"enum": [2]}))
    checker.check(rule({"enum": [3]}))


def test_it_ends_with_its_process() -> None:
    checker = GrammarChecker()
    checker.check(rule({"enum": [3]}))
    process_id = checker.process_id
    assert process_id is not None
    checker.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)
