"""The official SDK and openai's, unmodified, against a real server."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import openai
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, SDKError

from mezzo.backends.base import BackendUnavailable
from tests.fakes import FakeBackend, Script
from tests.server.live import KEY, MODEL, LiveServer, live_server

MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def mistral(server: LiveServer) -> Iterator[Mistral]:
    with Mistral(api_key=KEY, server_url=server.url) as client:
        yield client


class TestMistral:
    def test_complete(self, mistral: Mistral) -> None:
        answer = mistral.chat.complete(model=MODEL, messages=MESSAGES, temperature=0.1, max_tokens=20)
        assert answer.choices[0].message.content == "Hello!"
        assert answer.choices[0].finish_reason == "stop"
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 6)
        assert answer.model == MODEL

    def test_stream(self, server: LiveServer, mistral: Mistral) -> None:
        server.backend.script = Script(text="Bonjour à tous", step_s=0.005)
        with mistral.chat.stream(model=MODEL, messages=MESSAGES, n=2) as stream:
            chunks = [event.data for event in stream]
        for index in (0, 1):
            own = [c.choices[0] for c in chunks if c.choices[0].index == index]
            assert "".join(choice.delta.content for choice in own) == "Bonjour à tous"
            assert own[-1].finish_reason == "stop"
        assert chunks[-1].usage.completion_tokens == 30
        assert [chunk for chunk in chunks if chunk.usage] == [chunks[-1]]

    async def test_async(self, server: LiveServer) -> None:
        async with Mistral(api_key=KEY, server_url=server.url) as client:
            answer = await client.chat.complete_async(model=MODEL, messages=MESSAGES, n=2)
            assert [choice.message.content for choice in answer.choices] == ["Hello!", "Hello!"]
            stream = await client.chat.stream_async(model=MODEL, messages=MESSAGES)
            async with stream:
                texts = [event.data.choices[0].delta.content async for event in stream]
            assert "".join(texts) == "Hello!"

    def test_conversation_is_sent_back_as_the_sdk_does(self, mistral: Mistral) -> None:
        first = mistral.chat.complete(model=MODEL, messages=MESSAGES)
        messages = [*MESSAGES, first.choices[0].message, {"role": "user", "content": "And?"}]
        assert mistral.chat.complete(model=MODEL, messages=messages).usage.prompt_tokens == 2 + 6 + 4

    def test_prefix(self, mistral: Mistral) -> None:
        messages = [*MESSAGES, {"role": "assistant", "content": "Well, ", "prefix": True}]
        answer = mistral.chat.complete(model=MODEL, messages=messages)
        assert answer.choices[0].message.content == "Well, Hello!"

    def test_models(self, mistral: Mistral) -> None:
        cards = {card.id: card for card in mistral.models.list().data}
        assert cards[MODEL].capabilities.completion_chat
        assert mistral.models.retrieve(model_id=MODEL).name == "mistral-medium-2505"
        with pytest.raises(SDKError) as caught:
            mistral.models.retrieve(model_id="nope")
        assert caught.value.status_code == 404

    def test_deprecated_model_warns_on_json_and_does_not_break_streams(
        self, mistral: Mistral, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            mistral.chat.complete(model="mistral-medium", messages=MESSAGES)
        assert "mistral-medium is deprecated and will be removed on 2025-06-16T00:00:00Z" in caplog.text
        with mistral.chat.stream(model="mistral-medium", messages=MESSAGES) as stream:
            assert "".join(event.data.choices[0].delta.content for event in stream) == "Hello!"

    @pytest.mark.parametrize("stream", [False, True])
    def test_errors(self, server: LiveServer, mistral: Mistral, stream: bool) -> None:
        call = mistral.chat.stream if stream else mistral.chat.complete
        with pytest.raises(HTTPValidationError) as invalid:
            call(model=MODEL, messages=MESSAGES, temperature=7)
        assert invalid.value.data.detail[0].loc == ["body", "temperature"]
        with pytest.raises(SDKError) as unknown:
            call(model="nope", messages=MESSAGES)
        assert unknown.value.status_code == 400
        assert '"code":"1500"' in unknown.value.body
        with pytest.raises(SDKError) as overflow:
            call(model=MODEL, messages=[{"role": "user", "content": "x" * 5000}])
        assert "too large for model with 4096 maximum context length" in overflow.value.body
        server.backend.script = Script(refusal=BackendUnavailable("full"))
        with pytest.raises(SDKError) as full:
            call(model=MODEL, messages=MESSAGES)
        assert full.value.status_code == 503
        with Mistral(api_key="wrong", server_url=server.url) as stranger:
            call = stranger.chat.stream if stream else stranger.chat.complete
            with pytest.raises(SDKError) as unauthorized:
                call(model=MODEL, messages=MESSAGES)
            assert unauthorized.value.status_code == 401
            assert "Invalid API Key" in unauthorized.value.body

    def test_engine_that_dies_midway_is_an_error_finish(self, server: LiveServer, mistral: Mistral) -> None:
        server.backend.script = Script(text="abcdef", step_s=0.02, fail_at_step=3)
        with mistral.chat.stream(model=MODEL, messages=MESSAGES) as stream:
            chunks = [event.data for event in stream]
        assert chunks[-1].choices[0].finish_reason == "error"
        assert chunks[-1].usage.completion_tokens == 3

    def test_leaving_a_stream_stops_the_work(self, server: LiveServer, mistral: Mistral) -> None:
        server.backend.script = Script(text="x" * 1000, step_s=0.01)
        with mistral.chat.stream(model=MODEL, messages=MESSAGES) as stream:
            next(iter(stream))
        assert server.backend.generations[0].closed_early.wait(1)

    def test_rate_limit(self) -> None:
        with (
            live_server(FakeBackend(), requests_per_minute=1) as live,
            Mistral(api_key=KEY, server_url=live.url) as client,
        ):
            client.chat.complete(model=MODEL, messages=MESSAGES)
            with pytest.raises(SDKError) as limited:
                client.chat.complete(model=MODEL, messages=MESSAGES)
            assert limited.value.status_code == 429
            assert int(limited.value.headers["retry-after"]) >= 1


class TestOpenAI:
    @pytest.fixture
    def client(self, server: LiveServer) -> Iterator[openai.OpenAI]:
        with openai.OpenAI(api_key=KEY, base_url=server.url + "/v1", max_retries=0) as client:
            yield client

    def test_complete_and_stream(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
        assert answer.choices[0].message.content == "Hello!"
        chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
        assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "Hello!"
        assert chunks[-1].usage.total_tokens == 8

    async def test_async_stream(self, server: LiveServer) -> None:
        async with openai.AsyncOpenAI(api_key=KEY, base_url=server.url + "/v1") as client:
            stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
            assert "".join([chunk.choices[0].delta.content async for chunk in stream]) == "Hello!"

    def test_models(self, client: openai.OpenAI) -> None:
        assert MODEL in {model.id for model in client.models.list()}

    def test_errors(self, server: LiveServer, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="nope", messages=MESSAGES)
        with pytest.raises(openai.UnprocessableEntityError):
            client.chat.completions.create(model=MODEL, messages=MESSAGES, seed=1)
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()
        server.backend.script = Script(fault_at_step=0)
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model=MODEL, messages=MESSAGES)
