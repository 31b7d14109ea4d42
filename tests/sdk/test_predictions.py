"""Predicted outputs through the SDKs: the same text, and what was tried counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from openai import OpenAI

from tests.sdk.serving import ENDLESS, KEY, MODEL, Serving

QUESTION: list[dict[str, Any]] = [{"role": "user", "content": ENDLESS.format("horse")}]
FIELDS: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "max_tokens": 60, "temperature": 0}


def prediction(text: str) -> dict[str, Any]:
    return {"type": "content", "content": text}


@pytest.fixture(scope="module")
def plain(server: Serving) -> str:
    """The answer without a prediction."""
    with Mistral(api_key=KEY, server_url=server.url) as client:
        return str(client.chat.complete(**FIELDS).choices[0].message.content)


def test_what_is_expected_comes_and_is_counted(mistral: Mistral, plain: str) -> None:
    answer = mistral.chat.complete(**FIELDS, prediction=prediction(plain))
    assert answer.choices[0].message.content == plain
    details = answer.usage.model_dump()["completion_tokens_details"]
    assert details["accepted_prediction_tokens"] >= 40
    assert details["rejected_prediction_tokens"] < 20
    assert answer.usage.completion_tokens == 60


def test_what_is_not_expected_comes_all_the_same(mistral: Mistral, plain: str) -> None:
    answer = mistral.chat.complete(**FIELDS, prediction=prediction("Bread is baked from flour. " * 20))
    assert answer.choices[0].message.content == plain
    assert answer.usage.model_dump()["completion_tokens_details"]["accepted_prediction_tokens"] < 10


def test_a_changed_word_is_changed(mistral: Mistral, plain: str) -> None:
    words = plain.split(" ")
    changed = " ".join([*words[:10], "zebra", *words[11:]])
    answer = mistral.chat.complete(**FIELDS, prediction=prediction(changed))
    assert answer.choices[0].message.content == plain
    details = answer.usage.model_dump()["completion_tokens_details"]
    assert details["accepted_prediction_tokens"] >= 30
    assert details["rejected_prediction_tokens"] >= 1


def test_a_stream_counts_too(mistral: Mistral, plain: str) -> None:
    with mistral.chat.stream(**FIELDS, prediction=prediction(plain)) as events:
        chunks = [event.data for event in events]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == plain
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.model_dump()["completion_tokens_details"]["accepted_prediction_tokens"] >= 40


def test_with_a_seed_the_text_is_the_same(mistral: Mistral) -> None:
    fields = FIELDS | {"temperature": 1.0, "random_seed": 3}
    plain = mistral.chat.complete(**fields).choices[0].message.content
    assert (
        mistral.chat.complete(**fields, prediction=prediction(str(plain))).choices[0].message.content == plain
    )


def test_a_prefix_is_not_expected_again(mistral: Mistral, plain: str) -> None:
    begun = plain[: plain.index(" ", 20)]
    messages = [*QUESTION, {"role": "assistant", "content": begun, "prefix": True}]
    fields = FIELDS | {"messages": messages, "max_tokens": 30}
    whole = mistral.chat.complete(**fields).choices[0].message.content
    answer = mistral.chat.complete(**fields, prediction=prediction(str(whole)))
    assert answer.choices[0].message.content == whole
    assert answer.usage.model_dump()["completion_tokens_details"]["accepted_prediction_tokens"] >= 20


def test_openai_s_client_reads_the_counts(server: Serving, plain: str) -> None:
    with OpenAI(api_key=KEY, base_url=f"{server.url}/v1") as client:
        answer = client.chat.completions.create(**FIELDS, prediction={"type": "content", "content": plain})
    assert answer.usage is not None
    details = answer.usage.completion_tokens_details
    assert details is not None
    assert (details.accepted_prediction_tokens or 0) >= 40


def test_one_that_does_not_fit_is_a_context_error(mistral: Mistral) -> None:
    with pytest.raises(SDKError) as refused:
        mistral.chat.complete(**FIELDS, prediction=prediction("word " * 9000))
    body = json.loads(refused.value.body)
    assert body["code"] == "3051"
    assert "draft tokens, too large for model with" in body["message"]
    assert " 0 draft tokens" not in body["message"]


def test_without_one_nothing_is_counted(mistral: Mistral) -> None:
    usage = mistral.chat.complete(**FIELDS | {"max_tokens": 3}).usage.model_dump()
    assert "completion_tokens_details" not in usage
