"""Arrays that must not repeat themselves, watched byte by byte, and in the answers of a model that would."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzo.engine.grammar import Grammars
from mezzo.engine.grammar_errors import GrammarError, check_beginning
from mezzo.engine.messages import AddRequest
from mezzo.engine.unique_items import UniqueItems
from mezzo.model.decoder import Decoder
from mezzo.prompt.json_schema import json_rule
from tests.tiny import VOCAB_SIZE, VOCABULARY, make_core, make_request, run

UNIQUE: dict[str, Any] = {"type": "array", "uniqueItems": True}


def fits(schema: dict[str, Any], text: str) -> bool:
    """Read a text byte by byte, as far as it may go on."""
    state: UniqueItems | None = UniqueItems(schema)
    for byte in text.encode():
        assert state is not None
        state = state.after(bytes([byte]))
        if state is None:
            return False
    return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", True),
        ("[1, 2, 12]", True),
        ("[1, 2, 1]", False),
        ("[1, 1.0]", False),
        ("[1, true, false, null]", True),
        ("[null, null]", False),
        ('["a", "b", "ab", ""]', True),
        ('["a", "\\u0061"]', False),
        ('["a,", "a]", "a\\"", "a\\\\"]', True),
        ('["é", "é"]', False),
        ('[{"a": 1, "b": 2}, {"b": 2, "a": 1}]', False),
        ('[{"a": [1, 1]}, {"a": [1]}]', True),
        ("[[], {}, [[]], [{}]]", True),
        ("[[1, 2], [1, 2]]", False),
        (' [ 1 ,2, 1 ]', False),
    ],
)  # fmt: skip
def test_items_differ(text: str, expected: bool) -> None:
    assert fits(UNIQUE, text) is expected
    assert (UniqueItems(UNIQUE).after(text.encode()) is not None) is expected


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"properties": {"a": UNIQUE, "b": {}}}, '{"b": [1, 1], "a": [1]}', '{"b": [], "a": [1, 1]}'),
        ({"items": UNIQUE}, "[[1], [1]]", "[[1, 1]]"),
        ({"additionalProperties": UNIQUE, "properties": {"a": {}}}, '{"a": [1, 1]}', '{"b": [1, 1]}'),
        ({"patternProperties": {"x": UNIQUE}}, '{"x": [1]}', '{"x": [1, 1]}'),
        ({"prefixItems": [{}, UNIQUE], "items": {}}, "[[1, 1], [1], [1, 1]]", "[[], [1, 1]]"),
        ({"items": [{}, UNIQUE], "additionalItems": {}}, "[[1, 1], [1], [1, 1]]", "[[], [1, 1]]"),
        ({"$defs": {"u": UNIQUE}, "anyOf": [{"$ref": "#/$defs/u"}, {"type": "null"}]}, "null", "[1, 1]"),
        (
            {"$defs": {"t": {"properties": {"t": {"$ref": "#/$defs/t"}, "u": UNIQUE}}}, "$ref": "#/$defs/t"},
            '{"t": {"u": [1]}}',
            '{"t": {"t": {"u": [1, 1]}}}',
        ),
        ({"properties": {"a": {"uniqueItems": False}}}, '{"a": [1, 1]}', None),
    ],
)
def test_arrays_are_found_by_the_way_to_them(schema: dict[str, Any], good: str, bad: str | None) -> None:
    assert fits(schema, good)
    assert bad is None or not fits(schema, bad)


def test_a_way_to_an_item_that_is_taken_is_not_begun() -> None:
    schema = UNIQUE | {"items": {"enum": ["ab", "ac", "b", 1, 12]}}
    assert fits(schema, '["ab", "ac", "b", 1, 12]')
    assert not fits(schema, '["ab", "ac", "a')
    assert fits(schema, '["ab", "a')
    assert fits(schema, "[1, 1")  # 12 is left
    assert not fits(schema, "[12, 1, 1")
    assert not fits(schema, '["ab", "ac", "b", 1, 12,')
    assert not fits(UNIQUE | {"items": {"type": "boolean"}}, "[true, t")


def test_a_trace_before_the_answer_is_not_read() -> None:
    state = UniqueItems(UNIQUE).after_control_token()
    thinking = state.after(b"hm, [1, 1]")
    assert thinking is not None
    answer = thinking.after_control_token().after(b"[1, ")
    assert answer is not None
    assert answer.after(b"1]") is None
    assert answer.after(b"2]") is not None


def test_a_beginning_must_fit() -> None:
    schema = json.dumps(UNIQUE)
    check_beginning(b'["a", "b"', schema)
    check_beginning(b'["a", "a"', None)
    with pytest.raises(GrammarError, match="begins with"):
        check_beginning(b'["a", "a"', schema)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([1.0, 0.5]) | st.text("ab\"\\é,]", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)  # fmt: skip


@given(value=st.lists(VALUES, max_size=5), ascii_only=st.booleans())
def test_it_agrees_with_jsonschema(value: list[Any], ascii_only: bool) -> None:
    schema = UNIQUE | {"items": {"uniqueItems": True, "additionalProperties": {"uniqueItems": True}}}
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert fits(schema, text) is jsonschema.Draft202012Validator(schema).is_valid(value)


ANSWERS: dict[str, dict[str, Any]] = {
    "of a list": UNIQUE | {"items": {"enum": ["cat", "cow", "dog"]}, "minItems": 2},
    "all of a list": UNIQUE | {"items": {"enum": ["cat", "cow", "dog"]}, "minItems": 3},
    "digits": UNIQUE | {"items": {"type": "integer", "minimum": 0, "maximum": 20}, "maxItems": 6},
    "texts that are soon used up": UNIQUE
    | {"items": {"type": "string", "pattern": "^(a|b|bb)$"}, "minItems": 1, "maxItems": 3},
    "within": {
        "type": "object",
        "properties": {"tags": UNIQUE | {"items": {"type": "boolean"}}, "n": {"enum": [1, 2]}},
        "required": ["tags", "n"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize("schema", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("seed", range(3))
def test_every_answer_validates(decoder: Decoder, schema: dict[str, Any], seed: int) -> None:
    request = make_request("r", temperature=1.5, seed=seed, max_tokens=200, n=4)
    request = AddRequest(
        **{name: getattr(request, name) for name in request.__struct_fields__}
        | {
            "grammar": f"start: {json_rule(schema, unique_items=True)}",
            "unique_items": json.dumps(schema),
        }
    )
    done = run(make_core(decoder), request)
    for choice, text in done.texts.items():
        assert done.reasons[choice] == "stop"
        jsonschema.validate(json.loads(text), schema)


def test_without_being_watched_they_would_repeat(decoder: Decoder) -> None:
    """Else the test above would show nothing."""
    schema = ANSWERS["all of a list"]
    grammar = f"start: {json_rule(schema, unique_items=True)}"
    state = Grammars(VOCABULARY, VOCAB_SIZE).begin(grammar).result()
    state.take(list(b'["cat", "c'))
    assert state.num_valid(b'at", "cow"]') == len(b'at", "cow"]')
    watched = Grammars(VOCABULARY, VOCAB_SIZE).begin(grammar, unique_items=json.dumps(schema)).result()
    watched.take(list(b'["cat", "c'))
    assert watched.num_valid(b'at", "cow"]') == 0
    assert watched.num_valid(b'ow", "dog"]') == len(b'ow", "dog"]')
    assert watched.num_valid(b'ow", "cow"]') == len(b'ow", "')
