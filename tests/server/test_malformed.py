"""Malformed requests by the hundred: each is a 4xx in the API's shape. None is a 500, none hangs."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.server.live import LiveServer, assert_error, chat

WRONG_VALUES: list[Any] = [
    [], [[]], [None], {}, {"a": {"b": []}}, "", "x", -1, 10**400, 1.5, -0.1, True, False, "NaN",
    {"type": "x"}, [{"type": "text"}], [{"role": "user"}], "\x00", "\ud7ff", 1e308, -(2**63) - 1,
]  # fmt: skip

FULL: dict[str, Any] = {
    "model": "mistral-medium-latest",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "abcdefghi", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "f", "content": "1"},
    ],
    "temperature": 0.5,
    "top_p": 1,
    "max_tokens": 5,
    "stream": False,
    "stop": ["x"],
    "random_seed": 1,
    "n": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "response_format": {"type": "text"},
    "tools": [],
    "tool_choice": "auto",
    "metadata": {},
    "prediction": {"type": "content", "content": ""},
    "safe_prompt": False,
    "stream_options": {"include_usage": True},
}

BODIES_THAT_ARE_NO_OBJECT = [
    b"", b" ", b"{", b"}", b"null", b"[]", b"0", b'"x"', b"true", b"{]", b'{"model":}', b'{"model":"a",}',
    b"{'model':'a'}", b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"model":"\xff"}', b'{"model":"\\ud800"}', b"NaN",
    b'{"temperature":NaN}', b'{"temperature":Infinity}', b'{"temperature":1e999}', b"[" * 100_000,
    b'{"a":' * 100_000, b'{"model":"a"}{"model":"b"}', b"model=a&messages=b", b"\x00" * 1000,
    b'{"n":1' + b"0" * 10_000 + b"}", b"<xml/>", b"--boundary\r\n\r\nx\r\n--boundary--",
]  # fmt: skip


def paths_in(value: Any, path: tuple = ()) -> Iterator[tuple]:
    if isinstance(value, dict):
        for key, member in value.items():
            yield (*path, key)
            yield from paths_in(member, (*path, key))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield (*path, index)
            yield from paths_in(member, (*path, index))


def with_value(body: Any, path: tuple, value: Any) -> Any:
    changed = copy.deepcopy(body)
    parent = changed
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    return changed


def without(body: Any, path: tuple) -> Any:
    changed = copy.deepcopy(body)
    parent = changed
    for step in path[:-1]:
        parent = parent[step]
    del parent[path[-1]]
    return changed


def check(server: LiveServer, content: bytes) -> int:
    response = server.client.post("/v1/chat/completions", content=content, timeout=5)
    if response.status_code != 200:
        assert response.status_code in {400, 422}, (content[:500], response.text)
        assert_error(response, response.status_code)
        assert len(response.content) < 64 * 1024
    return response.status_code


def test_the_whole_request_is_accepted(server: LiveServer) -> None:
    assert check(server, json.dumps(FULL).encode()) == 200


@pytest.mark.parametrize("number", range(len(BODIES_THAT_ARE_NO_OBJECT)))
def test_body_that_is_no_request(server: LiveServer, number: int) -> None:
    assert check(server, BODIES_THAT_ARE_NO_OBJECT[number]) == 422


def test_every_wrong_value_in_every_place(server: LiveServer) -> None:
    statuses = [
        check(server, json.dumps(with_value(FULL, path, value)).encode())
        for path in paths_in(FULL)
        for value in WRONG_VALUES
    ]
    assert len(statuses) > 700
    assert statuses.count(422) > 500


def test_every_unknown_key_in_every_object(server: LiveServer) -> None:
    free_form = {"metadata"}
    places = [(), *(path for path in paths_in(FULL) if path[-1] not in free_form)]
    for path in places:
        target = FULL
        for step in path:
            target = target[step]
        if isinstance(target, dict):
            assert check(server, json.dumps(with_value(FULL, (*path, "surprise"), 1)).encode()) == 422, path


def test_every_place_left_out(server: LiveServer) -> None:
    for path in paths_in(FULL):
        check(server, json.dumps(without(FULL, path)).encode())


@pytest.mark.parametrize(
    "field", ["seed", "user", "max_completion_tokens", "store", "logit_bias", "functions", "cache_control"]
)
def test_fields_of_another_dialect_are_refused_by_name(server: LiveServer, field: str) -> None:
    (item,) = assert_error(server.post(chat(**{field: 1})), 422)["detail"]
    assert item == {
        "type": "extra_forbidden",
        "loc": ["body", field],
        "msg": "Extra inputs are not permitted",
        "input": 1,
    }


def test_large_wrong_input_is_not_repeated(server: LiveServer) -> None:
    response = server.post(chat(surprise="x" * 5_000_000))
    assert_error(response, 422)
    assert len(response.content) < 2000


def test_odd_headers_are_no_fault_of_the_server(server: LiveServer) -> None:
    for headers in (
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-9"},
        {"accept": "image/png"},
        {"x-forwarded-host": "evil", "forwarded": "host=evil"},
        {"accept-encoding": "\xff".encode("latin-1")},
        {"mistral-correlation-id": "mine"},
    ):
        response = server.post(chat(), headers=headers)
        assert response.status_code == 200
        assert response.headers["mistral-correlation-id"] != "mine"


@pytest.mark.parametrize(
    "path", ["/v1/models/%00", "/v1/models/%ff", "/v1/models/%F0%9F%94%91", "/v1/models/..%2f.."]
)
def test_odd_paths(server: LiveServer, path: str) -> None:
    assert_error(server.client.get(path), 404)


def test_long_names_are_not_repeated_whole(server: LiveServer) -> None:
    long = "x" * 8000
    call = {"id": long, "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}]
    for response in (
        server.client.get("/v1/models/" + long),
        server.post({**chat(), "model": long}),
        server.post(
            {**chat(), "messages": [*messages, {"role": "tool", "tool_call_id": long, "content": "1"}]}
        ),
    ):
        assert_error(response, response.status_code)
        assert 400 <= response.status_code < 500
        assert len(response.content) < 1200


def test_compressed_body_is_no_json(server: LiveServer) -> None:
    import gzip

    body = gzip.compress(json.dumps(chat()).encode())
    response = httpx.post(
        server.url + "/v1/chat/completions",
        content=body,
        headers={**server.client.headers, "content-encoding": "gzip"},
        trust_env=False,
    )
    assert_error(response, 422)
