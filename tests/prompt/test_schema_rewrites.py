"""Schemas without exclusions: never wider than what they say again, and where nothing forces it, not narrower."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzo.engine.grammar import check_grammar
from mezzo.engine.grammar_errors import GrammarError
from mezzo.prompt.json_schema import json_rule
from mezzo.prompt.schema_rewrites import without_exclusions

NAMES = ("a", "b", "c")
OBJECT = {"type": "object", "properties": {name: {"type": "integer"} for name in NAMES}}
CLOSED = OBJECT | {"additionalProperties": False}
TEXT, NUMBER, NONE = {"type": "string"}, {"type": "number"}, {"type": "null"}

# A schema, instances that stay valid, instances that are not.
EXACT: dict[str, tuple[dict[str, Any], list[Any], list[Any]]] = {
    "one of types": ({"oneOf": [TEXT, NONE, {"type": ["number"]}]}, ["x", None, 1], [True, []]),
    "one property or another": (
        CLOSED | {"oneOf": [{"required": ["a"]}, {"required": ["b", "c"]}]},
        [{"a": 1}, {"a": 1, "c": 2}, {"b": 1, "c": 2}],
        [{}, {"a": 1, "b": 1, "c": 1}, {"b": 1}],
    ),
    "closed objects": (
        {
            "oneOf": [
                CLOSED | {"required": ["a"]},
                {"type": "object", "properties": {"d": {}, "a": {}}, "required": ["a", "d"]},
            ]
        },
        [{"a": 1}, {"d": 2, "a": 1}],
        [{}, {"d": 1}],
    ),
    "tagged objects": (
        {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"kind": {"const": kind}, name: {}},
                    "required": ["kind", name],
                }
                for kind, name in (("x", "a"), ("y", "b"))
            ]
        },
        [{"kind": "x", "a": 1}, {"kind": "y", "b": 1}],
        [{"kind": "x", "b": 1}, {"kind": "z", "a": 1}],
    ),
    "tags that may be missing": (
        {
            "type": "object",
            "oneOf": [
                {"properties": {"kind": {"enum": ["x"]}, "a": TEXT}},
                {"properties": {"kind": {"enum": ["y", "z"]}, "a": NUMBER}},
            ],
        },
        [{"kind": "x", "a": "1"}, {"kind": "z", "a": 1}],
        [{}, {"kind": "x", "a": 1}],
    ),
    "enumerations that overlap": ({"oneOf": [{"enum": [1, 2, "a"]}, {"enum": [2, 3]}]}, [1, 3, "a"], [2]),
    "listed and described": (
        {"oneOf": [{"enum": ["auto", 10]}, {"type": "number", "minimum": 5}]},
        ["auto"],
        [10, 3],
    ),
    "bounds that touch": (
        {"oneOf": [{"type": "number", "maximum": 5}, {"type": "number", "minimum": 5}]},
        [4, 6],
        [5],
    ),
    "lengths": (
        {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 2}]},
        ["", "abcd"],
        ["ab", "abc"],
    ),
    "by reference": (
        {
            "$defs": {"text": TEXT, "number": {"$ref": "#/$defs/any~1number"}, "any/number": NUMBER},
            "oneOf": [{"$ref": "#/$defs/text"}, {"$ref": "#/$defs/number"}, NONE],
        },
        ["x", 1, None],
        [[]],
    ),
    "not a type": ({"not": NUMBER}, ["x", None, [], {}], [1, 1.5]),
    "not a value": ({"enum": [1, 2, 3], "not": {"const": 2}}, [1, 3], [2]),
    "not with a property": (OBJECT | {"not": {"required": ["a"]}}, [{}, {"b": 1}], [{"a": 1}]),
    "not both": (OBJECT | {"not": {"required": ["a", "b"]}}, [{"a": 1}, {"b": 1}, {}], [{"a": 1, "b": 1}]),
    "neither": (
        OBJECT | {"not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}},
        [{}, {"c": 1}],
        [{"a": 1}, {"b": 1}],
    ),
    "not not": ({"not": {"not": TEXT}}, ["x"], [1]),
    "depends on a property": (
        OBJECT | {"dependentRequired": {"a": ["b"]}},
        [{}, {"b": 1}, {"a": 1, "b": 1}],
        [{"a": 1}],
    ),
    "depends, in draft 7": (
        OBJECT
        | {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "dependencies": {"a": ["b"], "c": {"properties": {"a": False}}},
        },
        [{"c": 1}, {"a": 1, "b": 1}],
        [{"a": 1}, {"a": 1, "b": 1, "c": 1}],
    ),
    "names of a pattern": (
        {"type": "object", "propertyNames": {"pattern": "^x"}, "additionalProperties": NUMBER},
        [{}, {"x1": 1}],
        [{"a": 1}, {"x": "a"}],
    ),
    "names of a list": (
        {"type": "object", "propertyNames": {"enum": ["a", "b"]}},
        [{"a": None, "b": 1}],
        [{"c": 1}],
    ),
    "within": (
        {
            "type": "array",
            "items": {"type": "object", "properties": {"not": {"oneOf": [TEXT, NONE]}}, "required": ["not"]},
        },
        [[{"not": "x"}], [{"not": None}]],
        [[{"not": 1}], [{}]],
    ),
}


def valid(schema: dict[str, Any], instance: Any) -> bool:
    draft = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return bool(draft(schema).is_valid(instance))


@pytest.mark.parametrize(("schema", "good", "bad"), EXACT.values(), ids=EXACT.keys())
def test_the_same_is_allowed_and_a_grammar_follows_it(
    schema: dict[str, Any], good: list[Any], bad: list[Any]
) -> None:
    rewritten = without_exclusions(schema)
    assert rewritten != schema
    for instance in good:
        assert valid(schema, instance)
        assert valid(rewritten, instance)
        check_grammar(f"start: {json_rule(schema)}", json.dumps(instance).encode())
    for instance in bad:
        assert not valid(schema, instance)
        assert not valid(rewritten, instance)
        with pytest.raises(GrammarError):
            check_grammar(f'start: {json_rule(schema)} "!"', f"{json.dumps(instance)}!".encode())


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "not": {"pattern": "a"}},
        {"oneOf": [{"pattern": "a"}, {"pattern": "b"}], "type": "string"},
        {"type": "object", "properties": {"ab": {}}, "propertyNames": {"pattern": "a"}},
        {"$schema": "http://json-schema.org/draft-03/schema#", "not": {"type": "any"}},
        {"$schema": "http://json-schema.org/draft-04/schema#", "not": {"const": 1}},
        {"oneOf": [TEXT, NUMBER], "properties": {"a": {"$ref": "#/oneOf/0"}}},
    ],
)
def test_what_cannot_be_said_stays(schema: dict[str, Any]) -> None:
    assert without_exclusions(schema) == schema


@pytest.mark.parametrize("keyword", ["default", "examples", "const", "enum"])
def test_values_are_not_schemas(keyword: str) -> None:
    value = [{"not": {}, "oneOf": []}]
    assert without_exclusions({"not": TEXT, keyword: value})[keyword] == value


def test_nothing_is_fetched() -> None:
    """A reference to elsewhere says nothing; what cannot be excluded stays for the compiler to refuse."""
    elsewhere = {"$ref": "http://127.0.0.1:9/never.json"}
    schema = {"enum": [1, 2], "not": {"allOf": [elsewhere]}}
    assert without_exclusions(schema) == schema


def test_patterns_of_others_are_not_tried() -> None:
    """This one takes years for Python's `re`."""
    schema = {"oneOf": [{"const": "a" * 60 + "!"}, {"type": "string", "pattern": "^(a+)+$"}]}
    assert without_exclusions(schema) == schema


def test_branches_of_branches_end() -> None:
    schema: dict[str, Any] = {"required": ["a"]}
    for depth in range(8):
        schema = {"oneOf": [schema, {"required": [f"b{depth}"], "not": schema}, {"not": {"oneOf": [schema]}}]}
    assert without_exclusions(schema) == schema


VALUES = st.sampled_from([None, True, 0, 1, 2.5, "", "ab", "abcd"])
LEAVES = st.one_of(
    st.sampled_from(
        [True, False, {}, {"type": "integer"}, {"type": ["object", "string"]}, {"$ref": "#/$defs/a"}]
    ),
    st.builds(
        lambda types: {"type": types}, st.sampled_from(["null", "number", "string", "object", "array"])
    ),
    st.builds(lambda values: {"enum": values}, st.lists(VALUES, min_size=1, max_size=3)),
    st.builds(lambda value: {"const": value}, VALUES),
    st.sampled_from(
        [{"minimum": 1}, {"maximum": 1}, {"exclusiveMinimum": 0}, {"minLength": 2}, {"maxLength": 1}]
    ),
    st.sampled_from([{"minItems": 1}, {"maxItems": 1}, {"pattern": "b"}, {"multipleOf": 2}]),
    st.builds(lambda names: {"required": names}, st.lists(st.sampled_from(NAMES), max_size=2, unique=True)),
)


def branches(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    by_name = st.dictionaries(st.sampled_from(NAMES), inner, max_size=2)
    keywords = st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string", "number", ["object", "null"]]),
            "required": st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
            "properties": by_name,
            "additionalProperties": st.sampled_from([False, {"type": "string"}]),
            "patternProperties": st.just({"^c": {"type": "number"}}),
            "dependentSchemas": by_name,
            "items": inner,
            "oneOf": some,
            "anyOf": some,
            "allOf": some,
            "not": inner,
        },
    )
    return keywords | st.builds(lambda some: {"oneOf": some}, some) | st.builds(lambda s: {"not": s}, inner)


SCHEMAS = st.builds(
    lambda schema, definition: {"allOf": [schema], "$defs": {"a": definition}},
    st.recursive(LEAVES, branches, max_leaves=10),
    LEAVES.filter(lambda leaf: leaf != {"$ref": "#/$defs/a"}),
)
INSTANCES = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=5,
)


@given(schema=SCHEMAS, instances=st.lists(INSTANCES, min_size=5, max_size=20))
def test_nothing_is_allowed_that_was_not(schema: dict[str, Any], instances: list[Any]) -> None:
    rewritten = without_exclusions(schema)
    for instance in instances:
        if valid(rewritten, instance):
            assert valid(schema, instance), (schema, rewritten, instance)
