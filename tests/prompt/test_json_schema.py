"""Schemas of requests: what is refused, and what grammars get to see of the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mezzo.prompt.json_schema import ANY_OBJECT, MAX_SCHEMA_NODES, checked_schema, json_rule, num_nodes
from mezzo.protocol.errors import InvalidArguments


def seen_by_grammar(schema: dict[str, Any]) -> dict[str, Any]:
    rule = json_rule(schema)
    seen: dict[str, Any] = json.loads(rule.removeprefix("%json "))
    options = seen.pop("x-guidance")
    assert options == json.loads(json_rule(ANY_OBJECT).removeprefix("%json "))["x-guidance"]
    return seen


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objekt"}, "Invalid schema: 'objekt' is not valid under any of the given schemas"),
        (
            {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": "1"},
            "Invalid schema: '1' is not",
        ),
        (
            {"properties": {str(i): {} for i in range(MAX_SCHEMA_NODES)}},
            "The schema has more than 10000 parts",
        ),
    ],
)
def test_what_is_no_schema_is_refused_by_the_field_it_came_in(schema: dict[str, Any], message: str) -> None:
    for param in ("response_format", "tools"):
        with pytest.raises(InvalidArguments) as refused:
            checked_schema(schema, param)  # type: ignore[arg-type]
        assert refused.value.message.startswith(message)
        assert refused.value.param == param


def test_a_deep_schema_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(3000):
        schema = {"items": schema}
    with pytest.raises(InvalidArguments, match="nested too deeply"):
        checked_schema(schema, "tools")


def test_a_schema_is_taken_by_the_draft_that_it_names() -> None:
    four = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True}
    assert checked_schema(four, "tools") is four
    with pytest.raises(InvalidArguments):
        checked_schema({"minimum": 1, "exclusiveMinimum": True}, "tools")


def test_formats_that_no_grammar_knows_are_left_out_and_nothing_else() -> None:
    schema = {
        "type": "object",
        "properties": {
            "format": {"type": "string", "format": "path"},
            "x-guidance": {"type": "string", "format": "date"},
            "kind": {"const": {"format": "path", "x-guidance": 1}},
            "any": {"enum": [{"format": "path"}], "default": {"format": "path"}},
            "list": {"items": [{"format": "regex"}, {"format": "uuid"}]},
        },
        "patternProperties": {"^format": {"format": "path", "minLength": 1}},
    }
    assert seen_by_grammar(schema) == {
        "type": "object",
        "properties": {
            "format": {"type": "string"},
            "x-guidance": {"type": "string", "format": "date"},
            "kind": {"const": {"format": "path", "x-guidance": 1}},
            "any": {"enum": [{"format": "path"}], "default": {"format": "path"}},
            "list": {"items": [{}, {"format": "uuid"}]},
        },
        "patternProperties": {"^format": {"minLength": 1}},
    }


def test_a_schema_cannot_choose_its_own_options() -> None:
    inner = {"x-guidance": {"lenient": True}, "type": "string"}
    assert seen_by_grammar({"x-guidance": {"lenient": True}, "items": inner}) == {"items": {"type": "string"}}


def test_parts_are_counted_until_they_are_too_many() -> None:
    assert num_nodes({"a": [1, {"b": None}]}) == 5
    assert num_nodes([0] * (10 * MAX_SCHEMA_NODES)) == MAX_SCHEMA_NODES + 1
