"""openai's client with nothing changed but its URL and key, and the stream as plain HTTP has it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import openai
import pytest

from tests.sdk.serving import KEY, MODEL, Serving, chat

MESSAGES = [
    {"role": "system", "content": "You are a poet."},
    {"role": "user", "content": "Describe the sea."},
]


@pytest.fixture
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEY, base_url=server.url + "/v1", max_retries=0) as client:
        yield client


def test_json_and_stream_are_the_same_answer(client: openai.OpenAI) -> None:
    fields = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 12, "stop": ["\n\n"]}
    answer = client.chat.completions.create(**fields)
    chunks = list(
        client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == answer.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason
    assert chunks[-1].usage == answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_sampling_fields_that_both_apis_have(client: openai.OpenAI) -> None:
    fields = {"temperature": 1.0, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.5, "n": 2}
    answers = [
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=8, extra_body={"random_seed": 5}, **fields
        )
        for _ in range(2)
    ]
    texts = [[choice.message.content for choice in answer.choices] for answer in answers]
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]


async def test_async_stream(server: Serving) -> None:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=server.url + "/v1", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=6, stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage.completion_tokens == 6


@pytest.mark.parametrize(
    "field", [{"seed": 1}, {"max_completion_tokens": 9}, {"user": "me"}, {"store": False}]
)
def test_fields_that_only_openai_has_are_refused_by_name(
    client: openai.OpenAI, field: dict[str, object]
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, **field)
    (detail,) = caught.value.response.json()["detail"]
    assert (detail["type"], detail["loc"]) == ("extra_forbidden", ["body", *field])


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="too large for model with 8192 maximum context length"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "sea " * 9000}])
    with pytest.raises(openai.BadRequestError, match="Invalid model: gpt-4"):
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=MODEL, input="sea")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_models(client: openai.OpenAI) -> None:
    assert client.models.retrieve(MODEL).id == MODEL
    assert MODEL in {model.id for model in client.models.list()}


def test_stream_is_the_contracts_to_the_byte(server: Serving) -> None:
    response = server.post(chat(max_tokens=4, stream=True))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *frames, end, nothing = response.text.split("\n\n")
    assert (end, nothing) == ("data: [DONE]", "")
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    first, *middle, last = chunks
    assert re.fullmatch("[0-9a-f]{32}", first["id"])
    for chunk in chunks:
        names = ["id", "object", "created", "model", "choices"]
        assert [chunk[name] for name in names[:4]] == [
            first["id"], "chat.completion.chunk", first["created"], MODEL
        ]  # fmt: skip
        names += ["usage"] if chunk is last else []
        names += ["p"] if chunk is not first else []
        assert list(chunk) == names
        (choice,) = chunk["choices"]
        assert list(choice) == ["index", "delta", "finish_reason"]
        assert choice["finish_reason"] == ("length" if chunk is last else None)
        assert list(choice["delta"]) == (["role", "content"] if chunk is first else ["content"])
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(chunk["choices"][0]["delta"]["content"] for chunk in middle)
    assert last["usage"] == {
        "prompt_tokens": last["usage"]["total_tokens"] - 4,
        "completion_tokens": 4,
        "total_tokens": last["usage"]["total_tokens"],
        "prompt_tokens_details": {"cached_tokens": 0},
        "service_tier": "standard",
    }
