"""Bodies against the contract's 422 table, and every possible body against the promise of `parse_body`."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import RequestInvalid
from mezzo.protocol.parse import MAX_EXCERPT_LENGTH, MAX_ITEMS, parse_body

VALID = {"model": "mistral-medium-latest", "messages": [{"role": "user", "content": "Hi"}]}


def items_of(body: bytes | dict[str, Any]) -> list[dict[str, Any]]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(RequestInvalid) as caught:
        parse_body(ChatCompletionRequest, raw)
    items = caught.value.body()["detail"]
    # What the official SDKs need: a list of objects, loc of text and integers, ctx an object; strict JSON.
    assert json.loads(json.dumps(items, allow_nan=False)) == items
    for item in items:
        assert {"type", "loc", "msg", "input"} <= item.keys() <= {"type", "loc", "msg", "input", "ctx"}
        assert all(isinstance(part, str | int) for part in item["loc"])
        assert item["loc"][0] == "body"
        assert isinstance(item.get("ctx", {}), dict)
    return items


def test_missing_field_shows_the_parent_object() -> None:
    assert items_of({"model": "m"}) == [
        {"type": "missing", "loc": ["body", "messages"], "msg": "Field required", "input": {"model": "m"}}
    ]


def test_unknown_field_shows_its_value() -> None:
    assert items_of({**VALID, "max_completion_tokens": 2048}) == [
        {
            "type": "extra_forbidden",
            "loc": ["body", "max_completion_tokens"],
            "msg": "Extra inputs are not permitted",
            "input": 2048,
        }
    ]


@pytest.mark.parametrize(
    ("field", "value", "kind", "message", "ctx"),
    [
        ("temperature", 1.6, "less_than_equal", "Input should be less than or equal to 1.5", {"le": 1.5}),
        ("temperature", -1, "greater_than_equal", "Input should be greater than or equal to 0", {"ge": 0}),
        ("top_p", 0, "greater_than", "Input should be greater than 0", {"gt": 0}),
        ("top_p", 1.01, "less_than_equal", "Input should be less than or equal to 1", {"le": 1}),
        ("max_tokens", -1, "greater_than_equal", "Input should be greater than or equal to 0", {"ge": 0}),
        ("n", 0, "greater_than_equal", "Input should be greater than or equal to 1", {"ge": 1}),
        ("n", 17, "less_than_equal", "Input should be less than or equal to 16", {"le": 16}),
        ("presence_penalty", 2.5, "less_than_equal", "Input should be less than or equal to 2", {"le": 2}),
        (
            "frequency_penalty",
            -3,
            "greater_than_equal",
            "Input should be greater than or equal to -2",
            {"ge": -2},
        ),
        ("random_seed", -1, "greater_than_equal", "Input should be greater than or equal to 0", {"ge": 0}),
    ],
)
def test_out_of_range_number_names_the_bound(
    field: str, value: float, kind: str, message: str, ctx: dict[str, float]
) -> None:
    assert items_of({**VALID, field: value}) == [
        {"type": kind, "loc": ["body", field], "msg": message, "input": value, "ctx": ctx}
    ]


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("max_tokens", "ten", "int_parsing"),
        ("max_tokens", "10", "int_type"),
        ("max_tokens", True, "int_type"),
        ("max_tokens", [], "int_type"),
        ("max_tokens", 1.5, "int_from_float"),
        ("temperature", "hot", "float_parsing"),
        ("temperature", "0.5", "float_type"),
        ("temperature", False, "float_type"),
        ("temperature", {}, "float_type"),
        ("stream", "yes", "bool_type"),
        ("stream", 1, "bool_type"),
        ("stream", None, "bool_type"),
        ("model", 5, "string_type"),
        ("model", None, "string_type"),
        ("messages", "Hi", "list_type"),
        ("messages", None, "list_type"),
        ("metadata", "x", "dict_type"),
        ("reasoning_effort", "extreme", "literal_error"),
        ("prompt_mode", "fast", "literal_error"),
        ("service_tier", "priority", "literal_error"),
        ("response_format", "text", "model_attributes_type"),
        ("prediction", None, "model_attributes_type"),
        ("guardrails", {}, "list_type"),
    ],
)
def test_wrong_type_names_the_field(field: str, value: object, kind: str) -> None:
    (item,) = items_of({**VALID, field: value})
    assert (item["type"], item["loc"], item["input"]) == (kind, ["body", field], value)


def test_bad_constant_lists_what_was_expected() -> None:
    (item,) = items_of({**VALID, "response_format": {"type": "xml"}})
    assert item["loc"] == ["body", "response_format", "type"]
    assert item["ctx"] == {"expected": "'text', 'json_object' or 'json_schema'"}


@pytest.mark.parametrize(
    ("message", "kind"),
    [({"role": "developer", "content": "x"}, "union_tag_invalid"), ({"content": "x"}, "union_tag_not_found")],
)
def test_bad_role_is_an_error_of_the_message(message: dict[str, str], kind: str) -> None:
    (item,) = items_of({**VALID, "messages": [message]})
    assert (item["type"], item["loc"]) == (kind, ["body", "messages", 0])
    assert item["ctx"]["discriminator"] == "'role'"
    if kind == "union_tag_invalid":
        assert item["ctx"]["tag"] == "developer"
        assert item["ctx"]["expected_tags"] == "'system', 'user', 'assistant', 'tool'"


def test_unknown_field_of_a_message_is_found_behind_its_role() -> None:
    (item,) = items_of({**VALID, "messages": [{"role": "user", "content": "x", "name": "Ann"}]})
    assert (item["type"], item["loc"]) == ("extra_forbidden", ["body", "messages", 0, "user", "name"])


def test_value_that_fits_no_member_of_a_union_has_one_item_for_each() -> None:
    items = items_of({**VALID, "messages": [{"role": "system", "content": None}]})
    assert [item["type"] for item in items] == ["string_type", "list_type"]
    assert items[0]["loc"] == ["body", "messages", 0, "system", "content", "str"]
    assert items[1]["loc"][:5] == ["body", "messages", 0, "system", "content"]


@pytest.mark.parametrize("chunk", [{"text": "x"}, {"type": "video", "video": "x"}])
def test_chunk_without_a_known_type_is_refused(chunk: dict[str, str]) -> None:
    items = items_of({**VALID, "messages": [{"role": "user", "content": [chunk]}]})
    assert any(item["type"].startswith("union_tag_") and item["loc"][-1] == 0 for item in items)


def test_json_schema_format_without_a_schema_is_refused() -> None:
    (item,) = items_of({**VALID, "response_format": {"type": "json_schema"}})
    assert (item["type"], item["loc"]) == ("missing", ["body", "response_format", "json_schema"])


@pytest.mark.parametrize("stop", ["", [""], ["x"] * 65, "x" * 1025, 5, [5]])
def test_stop_that_could_not_be_looked_for_is_refused(stop: object) -> None:
    assert all(item["loc"][:2] == ["body", "stop"] for item in items_of({**VALID, "stop": stop}))


@pytest.mark.parametrize(
    ("body", "position"),
    [
        (b"{", 0),
        (b'{"model": NaN}', 10),
        (b'{"model": Infinity}', 10),
        (b'{"model":\n\n -Infinity}', 13),
        (b'{"model": "\xff"}', 11),
        (b'{"model": "\\ud800"}', 17),
        (b'{"model": 1} {}', 13),
        (b"[" * 100_000, 201),
        (b"not json", 1),
        (b"\xef\xbb\xbf{}", 0),
    ],
)
def test_body_that_is_not_json_says_where(body: bytes, position: int) -> None:
    (item,) = items_of(body)
    assert (item["type"], item["msg"], item["loc"]) == (
        "json_invalid",
        "JSON decode error",
        ["body", position],
    )


def test_empty_body_is_missing() -> None:
    assert items_of(b"") == [{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}]


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"text"', b"true"])
def test_body_that_is_no_object_is_refused_without_naming_our_classes(body: bytes) -> None:
    (item,) = items_of(body)
    assert (item["type"], item["loc"]) == ("model_attributes_type", ["body"])
    assert "ChatCompletionRequest" not in json.dumps(item)


@pytest.mark.parametrize("literal", ["1e400", "-1e400"])
def test_number_beyond_a_double_is_refused_at_any_depth(literal: str) -> None:
    whole = json.dumps({**VALID, "metadata": {"a": [{"b": "@"}]}, "temperature": "@"}).replace('"@"', literal)
    items = items_of(whole.encode())
    assert [(item["type"], item["loc"][1]) for item in items] == [
        ("finite_number", "temperature"),
        ("finite_number", "metadata"),
    ]


@pytest.mark.parametrize("field", ["random_seed", "max_tokens", "n", "top_k", "temperature", "top_logprobs"])
def test_integer_beyond_64_bits_is_refused(field: str) -> None:
    for value in (2**63, 2**64, 10**400, 10**4000):
        (item,) = items_of({**VALID, field: value})
        assert item["loc"] == ["body", field]


def test_random_seed_may_be_as_large_as_the_engine_can_carry() -> None:
    request = parse_body(ChatCompletionRequest, json.dumps({**VALID, "random_seed": 2**63 - 1}).encode())
    assert request.random_seed == 2**63 - 1


def test_large_inputs_are_not_repeated() -> None:
    body = {
        "x" * 10_000: 1,
        "messages": [{"role": "r" * 10_000}],
        "stop": [["y" * 10_000] * 10],
        "store": {"deep": ["z" * 10_000] * 100},
    }
    items = items_of(body)
    assert {item["type"] for item in items} >= {"missing", "extra_forbidden", "union_tag_invalid"}
    assert len(json.dumps(items)) < len(items) * 8 * MAX_EXCERPT_LENGTH


def test_number_of_items_is_bounded() -> None:
    assert len(items_of({"model": "m", "messages": [0] * 1000})) == MAX_ITEMS


@pytest.mark.parametrize(
    "body", [{**VALID, "messages": [0] * 100_000}, {str(number): 1 for number in range(100_000)}]
)
def test_errors_without_number_are_counted_and_not_listed(body: dict[str, Any]) -> None:
    (item,) = items_of(body)
    assert item["loc"] == ["body"]
    assert re.search(r"10000\d parts of the body do not fit", item["msg"])


def test_credentials_are_never_repeated() -> None:
    body = {
        "api_key": "hush-1",
        "Authorization": "hush-2",
        "extra": {"access_token": "hush-3", "list": [{"client_secret": "hush-4"}]},
        "tools": [
            {
                "type": "connector",
                "connector_id": 5,
                "authorization": {"type": "api-key", "value": ["hush-5"]},
            },
            {
                "type": "connector",
                "connector_id": "c",
                "authorization": {"type": "oauth2-token", "value": "hush-6", "x": 1},
            },
        ],
    }
    text = json.dumps(items_of(body))
    assert "hush" not in text
    assert "[redacted]" in text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
field_names = st.sampled_from(
    [*ChatCompletionRequest.model_fields, "role", "type", "content", "schema", "text"]
)
likely_values = json_values | st.recursive(
    st.sampled_from(
        ["user", "system", "tool", "assistant", "text", "function", "image_url", "json_schema", 0, 1]
    )
    | json_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(field_names, inner, max_size=4),
    max_leaves=8,
)


def accepts_or_refuses(body: bytes) -> None:
    try:
        request = parse_body(ChatCompletionRequest, body)
    except RequestInvalid as error:
        details = error.details
    else:
        assert isinstance(request, ChatCompletionRequest)
        return
    assert 1 <= len(details) <= MAX_ITEMS
    json.dumps(details, allow_nan=False).encode()


@given(st.binary(max_size=200))
@example(b"1" * 5000)
@example(b'{"messages": [' + b'{"content": [' * 90)
@settings(deadline=None, max_examples=200)
def test_any_bytes_end_as_a_request_or_a_refusal(body: bytes) -> None:
    accepts_or_refuses(body)


@given(likely_values)
@settings(deadline=None, max_examples=200)
def test_any_json_ends_as_a_request_or_a_refusal(value: object) -> None:
    accepts_or_refuses(json.dumps(value).encode())


@given(field_names, likely_values, st.sampled_from(["body", "message", "chunk", "tool", "format"]))
@settings(deadline=None, max_examples=400)
def test_any_change_to_a_valid_request_ends_as_a_request_or_a_refusal(
    field: str, value: object, place: str
) -> None:
    chunk: dict[str, object] = {"type": "text", "text": "Hi"}
    message: dict[str, object] = {"role": "user", "content": [chunk]}
    tool: dict[str, object] = {"type": "function", "function": {"name": "f", "parameters": {}}}
    response_format: dict[str, object] = {"type": "text"}
    body: dict[str, object] = {
        "model": "m",
        "messages": [message],
        "tools": [tool],
        "response_format": response_format,
    }
    parts = {"body": body, "message": message, "chunk": chunk, "tool": tool, "format": response_format}
    parts[place][field] = value
    accepts_or_refuses(json.dumps(body).encode())


@given(st.integers(0, 60), st.binary(max_size=3))
@settings(deadline=None, max_examples=200)
def test_damaged_bytes_of_a_valid_request_end_as_a_request_or_a_refusal(position: int, patch: bytes) -> None:
    body = json.dumps({**VALID, "temperature": 0.3, "metadata": {"ключ": "значение"}}).encode()
    accepts_or_refuses(body[:position] + patch + body[position + 1 :])
