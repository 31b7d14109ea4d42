"""Malformed requests by the hundred, at once and while others are answered: each a 4xx in the API's shape."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.sdk.serving import Serving, chat, stream, wait_until
from tests.server.live import assert_error

# Values that no field takes, or only those that say so below.
ODD = [None, True, -1, 0, 10**30, 1.5, 1e308, "", "x", "1", [], {}, [[]], [None], {"a": 1}, ["x"] * 100]
NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "01", "+1", "0x10")
# What each field takes among ODD. Wherever these stand, the request is answered instead.
TAKES: dict[str, list[Any]] = {
    "model": [],
    "messages": [],
    "temperature": [None, 0, 1.5],
    "top_p": [None],
    "max_tokens": [None, 0],
    "stream": [True],
    "stop": [None, "x", "1", []],
    "random_seed": [None, 0],
    "n": [None],
    "presence_penalty": [None, -1, 0, 1.5],
    "response_format": [{}],
    "tools": [None, []],
    "tool_choice": [],
    "prediction": [{}],
    "safe_prompt": [True],
    "guardrails": [None, []],
    "service_tier": [None],
    "stream_options": [None, {}],
}


def malformed() -> Iterator[bytes]:
    whole = chat(max_tokens=1)
    for field, taken in TAKES.items():
        for value in ODD:
            if not any(value == good and type(value) is type(good) for good in taken):
                yield json.dumps(whole | {field: value}).encode()
        for number in NUMBERS:
            yield json.dumps(whole | {field: "@"}).replace('"@"', number).encode()
    for value in ODD:
        yield json.dumps(whole | {"messages": [value]}).encode()
        yield json.dumps(whole | {"messages": [{"role": value, "content": "Hi"}]}).encode()
        yield json.dumps(whole | {"messages": [{"role": "user", "content": "Hi", "name": value}]}).encode()
        yield json.dumps(value).encode()
    for role in ("developer", "function", "User", "assistant", "tool"):
        yield json.dumps(whole | {"messages": [{"role": role, "content": "Hi"}]}).encode()
    for field in ("seed", "user", "logit_bias", "max_completion_tokens", "store", "functions", "best_of"):
        yield json.dumps(whole | {field: 1}).encode()
    text = json.dumps(whole).encode()
    yield from (text[:length] for length in range(0, len(text), 7))
    yield from (
        b"\xff" + text,
        text + b"}",
        text.replace(b'"', b"'"),
        b"\x00",
        b"[" * 5000,
        text.decode().encode("utf-16"),
    )


def test_each_is_a_4xx_in_the_apis_shape_and_the_server_goes_on(server: Serving) -> None:
    bodies = list(malformed())
    assert len(bodies) > 400
    random.Random(0).shuffle(bodies)
    beside = chat("Tell me about the moon.", max_tokens=24)
    expected = stream(server, beside).text

    def send(body: bytes) -> None:
        response = server.client.post("/v1/chat/completions", content=body, timeout=30)
        assert response.status_code in (400, 422), (body[:300], response.text)
        assert_error(response, response.status_code)

    with ThreadPoolExecutor(9) as pool:
        running = pool.submit(stream, server, beside)
        list(pool.map(send, bodies))
        assert running.result(60).text == expected
    wait_until(server.is_idle)
    assert server.post(chat()).status_code == 200
