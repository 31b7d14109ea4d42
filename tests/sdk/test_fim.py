"""Filling in the middle: with weights of which the operator says that they were trained to, and with no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from tests.scripted import write_scripted_checkpoint
from tests.sdk.serving import KEY, Serving, serving

MODEL = "mistral-medium-3-5"
SUFFIX = "    return total\n"
MIDDLE = "total = first + second"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scripted_checkpoint(tmp_path_factory.mktemp("fim"), "v13", {"[PREFIX]": [MIDDLE]})


@pytest.fixture(scope="module")
def running(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    models = json.dumps({MODEL: str(folder)})
    with serving(
        tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("run"), models=models, fim=True
    ) as running:
        yield running


@pytest.fixture
def client(running: Serving) -> Iterator[Mistral]:
    with Mistral(api_key=KEY, server_url=running.url) as client:
        yield client


def num_tokens(folder: Path, prompt: str, suffix: str | None) -> int:
    tokenizer = MistralTokenizer.from_file(str(folder / "tekken.json"))
    return len(tokenizer.encode_fim(FIMRequest(prompt=prompt, suffix=suffix)).tokens)


def test_the_middle_is_filled_in(client: Mistral, folder: Path) -> None:
    answer = client.fim.complete(model=MODEL, prompt="", suffix=SUFFIX, temperature=0)
    (choice,) = answer.choices
    assert choice.message.content == MIDDLE
    assert choice.finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.usage.prompt_tokens == num_tokens(folder, "", SUFFIX)


def test_a_stream_is_the_same_text(client: Mistral) -> None:
    with client.fim.stream(model=MODEL, prompt="", suffix=SUFFIX, temperature=0) as events:
        chunks = [event.data for event in events]
    assert "".join(str(chunk.choices[0].delta.content or "") for chunk in chunks) == MIDDLE
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_it_ends_where_it_is_told_to(client: Mistral) -> None:
    stopped = client.fim.complete(model=MODEL, prompt="", suffix=SUFFIX, temperature=0, stop=" second")
    assert stopped.choices[0].message.content == "total = first +"
    short = client.fim.complete(model=MODEL, prompt="", suffix=SUFFIX, temperature=0, max_tokens=2)
    assert short.choices[0].finish_reason == "length"
    assert short.usage.completion_tokens == 2
    assert MIDDLE.startswith(str(short.choices[0].message.content))


@pytest.mark.parametrize("suffix", [None, "", SUFFIX])
def test_the_prompt_is_counted_as_the_reference_does(
    client: Mistral, folder: Path, suffix: str | None
) -> None:
    prompt = "def add(first, second):\n    [PREFIX]"
    answer = client.fim.complete(model=MODEL, prompt=prompt, suffix=suffix, max_tokens=1)
    assert answer.usage.prompt_tokens == num_tokens(folder, prompt, suffix)


def test_the_card_says_so(client: Mistral, running: Serving) -> None:
    card = client.models.retrieve(model_id=MODEL)
    assert card.capabilities.completion_fim
    assert card.capabilities.completion_chat


@pytest.mark.parametrize(
    ("fields", "param"), [({"min_tokens": 3}, "min_tokens"), ({"max_tokens": 10**9}, "max_tokens")]
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: Mistral, fields: dict[str, int], param: str
) -> None:
    with pytest.raises(SDKError) as refused:
        client.fim.complete(model=MODEL, prompt="a", **fields)
    assert refused.value.status_code == 400
    assert json.loads(refused.value.body)["param"] == param


def test_a_prompt_that_is_too_long_is_refused(client: Mistral) -> None:
    with pytest.raises(SDKError) as refused:
        client.fim.complete(model=MODEL, prompt="word " * 40_000)
    assert refused.value.status_code == 400
    assert "too large" in json.loads(refused.value.body)["message"]


def test_other_weights_do_not(folder: Path, tmp_path: Path) -> None:
    """The same folder without the operator's word."""
    (tmp_path / "run").mkdir()
    with (
        serving(tmp_path / "home", tmp_path / "run", models=json.dumps({MODEL: str(folder)})) as running,
        Mistral(api_key=KEY, server_url=running.url) as client,
        pytest.raises(SDKError) as refused,
    ):
        client.fim.complete(model=MODEL, prompt="a")
    assert json.loads(refused.value.body)["code"] == "1500"
