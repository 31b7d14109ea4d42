"""Answers that must be JSON, and calls that must be made, by real weights that would seldom manage by themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import jsonschema
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field

from tests.sdk.serving import KEY, MODEL, Serving

USER = {"role": "user", "content": "Tell me about a city."}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Look up the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"enum": [1, 3, 7]}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
TIME: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "now",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}


class Closed(BaseModel):
    """No key but those named: with strings that end too, every answer is finished within 300 tokens."""

    model_config = ConfigDict(extra="forbid")


class Mayor(Closed):
    name: str = Field(max_length=20)
    terms: int = Field(ge=0, le=9)


class City(Closed):
    name: str = Field(pattern="^[A-Za-z ]{1,20}$")
    size: Literal["small", "large"]
    mayor: Mayor | None
    districts: list[Literal["north", "south"]] = Field(max_length=2)


class Palette(Closed):
    colours: set[Literal["red", "green", "blue"]] = Field(min_length=3)


@pytest.fixture
def openai(server: Serving) -> Iterator[OpenAI]:
    with OpenAI(api_key=KEY, base_url=f"{server.url}/v1") as client:
        yield client


def complete(client: Mistral, **fields: Any) -> Any:
    answer = client.chat.complete(**{"model": MODEL, "messages": [USER], "max_tokens": 300} | fields)
    return answer.choices[0]


class TestJson:
    @pytest.mark.parametrize("seed", range(3))
    def test_parse_gives_the_class(self, mistral: Mistral, seed: int) -> None:
        answer = mistral.chat.parse(
            City, model=MODEL, messages=[USER], random_seed=seed, temperature=1.5, max_tokens=300
        )
        (choice,) = answer.choices
        assert choice.finish_reason == "stop"
        assert isinstance(choice.message.parsed, City)

    def test_an_object(self, mistral: Mistral) -> None:
        choice = complete(mistral, response_format={"type": "json_object"}, temperature=0)
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.finish_reason == "length"
            assert choice.message.content.lstrip().startswith("{")

    def test_a_stream_is_the_same_text(self, mistral: Mistral) -> None:
        schema = {"type": "json_schema", "json_schema": {"name": "c", "schema": City.model_json_schema()}}
        whole = complete(mistral, response_format=schema, random_seed=1)
        with mistral.chat.stream(
            model=MODEL, messages=[USER], response_format=schema, random_seed=1, max_tokens=300
        ) as events:
            text = "".join(event.data.choices[0].delta.content or "" for event in events)
        assert text == whole.message.content
        jsonschema.validate(json.loads(text), City.model_json_schema())

    def test_a_prefix_is_gone_on_from(self, mistral: Mistral) -> None:
        schema = {"type": "json_schema", "json_schema": {"name": "c", "schema": City.model_json_schema()}}
        messages = [USER, {"role": "assistant", "content": '{"name": "Rome", "size": "', "prefix": True}]
        choice = complete(mistral, messages=messages, response_format=schema)
        assert choice.message.content.startswith('{"name": "Rome", "size": "')
        jsonschema.validate(json.loads(choice.message.content), City.model_json_schema())

    def test_a_set_has_nothing_twice(self, mistral: Mistral) -> None:
        answer = mistral.chat.parse(Palette, model=MODEL, messages=[USER], temperature=1.5, max_tokens=100)
        content = json.loads(answer.choices[0].message.content)
        assert sorted(content["colours"]) == ["blue", "green", "red"]

    def test_a_prefix_that_has_something_twice_is_refused(self, mistral: Mistral) -> None:
        schema = {"type": "json_schema", "json_schema": {"name": "p", "schema": Palette.model_json_schema()}}
        begun = {"role": "assistant", "content": '{"colours": ["red", "red"', "prefix": True}
        with pytest.raises(SDKError) as refused:
            complete(mistral, messages=[USER, begun], response_format=schema)
        assert "begins with does not fit" in json.loads(refused.value.body)["message"]

    def test_openai_s_client_parses(self, openai: OpenAI) -> None:
        answer = openai.chat.completions.parse(
            model=MODEL, messages=[{"role": "user", "content": "Tell me about a city."}],
            response_format=City, max_tokens=300,
        )  # fmt: skip
        assert isinstance(answer.choices[0].message.parsed, City)

    @pytest.mark.parametrize(
        ("schema", "message"),
        [
            ({"type": "strange"}, "Invalid schema"),
            ({"type": "string", "not": {"pattern": "a"}}, "The schema cannot be followed"),
            ({"type": "string", "pattern": "(a"}, "Invalid schema"),
            (
                {
                    "properties": {
                        f"k{i}": {"type": "string", "pattern": "^(a|b)*c{1,30}$"} for i in range(2500)
                    }
                },
                "The schema",
            ),
        ],
    )
    def test_a_schema_that_cannot_be_followed_is_an_error(
        self, mistral: Mistral, schema: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(SDKError) as refused:
            complete(
                mistral,
                response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
            )
        body = json.loads(refused.value.body)
        assert refused.value.raw_response.status_code == 400
        assert body["message"].startswith(message)
        assert (body["code"], body["param"]) == ("3051", "response_format")

    def test_the_schema_counts_as_prompt(self, mistral: Mistral) -> None:
        def prompt_tokens(**fields: Any) -> int:
            answer = mistral.chat.complete(model=MODEL, messages=[USER], max_tokens=0, **fields)
            return answer.usage.prompt_tokens

        schema = {"type": "json_schema", "json_schema": {"name": "c", "schema": City.model_json_schema()}}
        assert prompt_tokens(response_format=schema) > prompt_tokens() + 100


class TestCalls:
    @pytest.mark.parametrize("choice", ["any", "required"])
    @pytest.mark.parametrize("seed", [1, 2])
    def test_a_call_is_made(self, mistral: Mistral, choice: str, seed: int) -> None:
        answer = complete(
            mistral, tools=[WEATHER, TIME], tool_choice=choice, temperature=1, random_seed=seed,
            parallel_tool_calls=False,
        )  # fmt: skip
        assert answer.finish_reason == "tool_calls"
        assert answer.message.content == ""
        (call,) = answer.message.tool_calls
        tool = {"get_weather": WEATHER, "now": TIME}[call.function.name]
        jsonschema.validate(json.loads(call.function.arguments), tool["function"]["parameters"])

    def test_the_named_function_is_called(self, mistral: Mistral) -> None:
        answer = complete(
            mistral, tools=[TIME, WEATHER], parallel_tool_calls=False,
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
        )  # fmt: skip
        (call,) = answer.message.tool_calls
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments)["days"] in (1, 3, 7)
        assert len(call.id) == 9

    def test_a_stream_of_calls(self, mistral: Mistral) -> None:
        with mistral.chat.stream(
            model=MODEL, messages=[USER], tools=[WEATHER], tool_choice="any", parallel_tool_calls=False,
            max_tokens=300,
        ) as events:  # fmt: skip
            chunks = [event.data.choices[0] for event in events]
        (call,) = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
        jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])
        assert chunks[-1].finish_reason == "tool_calls"

    def test_left_to_the_model_it_says_something_or_calls(self, mistral: Mistral) -> None:
        answer = complete(mistral, tools=[WEATHER], temperature=0, max_tokens=60)
        assert answer.message.content or answer.message.tool_calls or answer.finish_reason == "length"

    def test_a_result_comes_back(self, mistral: Mistral) -> None:
        first = complete(mistral, tools=[TIME], tool_choice="any", parallel_tool_calls=False)
        (call,) = first.message.tool_calls
        messages = [
            USER,
            first.message,
            {"role": "tool", "tool_call_id": call.id, "name": "now", "content": "noon"},
        ]
        answer = complete(mistral, messages=messages, tools=[TIME], max_tokens=20)
        assert answer.finish_reason in {"stop", "length", "tool_calls"}

    def test_openai_s_client_gets_a_call(self, openai: OpenAI) -> None:
        answer = openai.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Weather?"}], tools=[WEATHER],  # type: ignore[list-item]
            tool_choice="required", parallel_tool_calls=False, max_tokens=300,
        )  # fmt: skip
        (call,) = answer.choices[0].message.tool_calls or ()
        assert call.type == "function"
        jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])


def test_a_hostile_schema_does_not_hold_up_a_stream(server: Serving) -> None:
    """Its patterns would be compiled for hours: it is given up after seconds, and meanwhile others are answered."""
    hostile = {"type": "string", "allOf": [{"pattern": f"x{i}.*y{i}"} for i in range(60)]}
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": hostile}}
    body = {"model": MODEL, "messages": [USER], "max_tokens": 3, "temperature": 0}
    headers = {"authorization": f"Bearer {KEY}"}
    with (
        httpx.Client(base_url=server.url, headers=headers, timeout=60) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        alone = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        refused = thread.submit(client.post, "/v1/chat/completions", json=body | {"response_format": schema})
        events = list(iter_stream(client, body | {"stream": True}))
        assert not refused.done()
        assert "".join(events) == alone
        answer = refused.result()
        assert answer.status_code == 400
        assert answer.json()["message"].startswith("The schema cannot be followed")
        bounded = body | {"response_format": {"type": "json_object"}, "max_tokens": 1}
        assert client.post("/v1/chat/completions", json=bounded).status_code == 200


def iter_stream(client: httpx.Client, body: dict[str, Any]) -> Iterator[str]:
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content") or ""
