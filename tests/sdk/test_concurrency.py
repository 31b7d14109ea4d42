"""Many requests at once: each gets its own answer, the same as alone; a long prompt and a full queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mezzo.weights import CheckpointFolder
from tests.sdk.serving import ENDLESS, MODEL, SUBJECTS, Serving, chat, serving, stream, wait_until

CITIES = [
    "Paris", "Rome", "Berlin", "Madrid", "Vienna", "Prague", "Warsaw", "Lisbon", "Dublin", "Oslo", "Bern",
    "Athens", "Cairo", "Delhi", "Tokyo", "Seoul", "Hanoi", "Lima", "Quito", "Bogota", "Ottawa", "Havana",
    "Nairobi", "Accra", "Dakar", "Tunis", "Rabat", "Doha", "Muscat", "Tehran", "Kabul", "Baku",
]  # fmt: skip


def counted(streamed: Any) -> dict[str, Any]:
    """Return the usage of a stream, but for what its prompt found in the prefix cache: the second time that is more."""
    usage = dict(streamed.chunks[-1]["usage"])
    assert usage.pop("prompt_tokens_details")["cached_tokens"] in range(0, usage["prompt_tokens"], 64)
    return usage


def test_thirty_two_streams_get_what_each_gets_alone(server: Serving) -> None:
    requests = [
        chat(f"{'Say a little more than usual. ' * (i % 5)}What is {city} known for?", max_tokens=7)
        | ({"temperature": 1.0, "random_seed": i} if i % 2 else {})
        for i, city in enumerate(CITIES)
    ]
    alone = [stream(server, request) for request in requests]
    assert len({streamed.text for streamed in alone}) > 16
    start_together = threading.Barrier(len(requests))

    def ask(request: dict[str, Any]) -> Any:
        start_together.wait()
        return stream(server, request)

    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(ask, requests))
    for one, many in zip(alone, together, strict=True):
        assert many.ended
        assert many.text == one.text
        assert counted(many) == counted(one)
    assert len({streamed.chunks[0]["id"] for streamed in together}) == len(requests)
    wait_until(server.is_idle)


def test_long_prompt_does_not_stall_running_streams(server: Serving) -> None:
    with ThreadPoolExecutor(4) as pool:
        running = threading.Semaphore(0)
        is_read = threading.Event()

        def keep_reading(number: int) -> Any:
            def on_chunk(streamed: Any) -> None:
                if len(streamed.chunks) == 3:
                    running.release()
                if is_read.is_set() and len(streamed.chunks) > 3:
                    raise StopReading(streamed)

            try:
                stream(server, chat(ENDLESS.format(SUBJECTS[number]), max_tokens=2000), on_chunk)
            except StopReading as stop:
                return stop.args[0]
            raise AssertionError("the stream ended before the long prompt was read")

        streams = [pool.submit(keep_reading, number) for number in range(4)]
        for _ in streams:
            assert running.acquire(timeout=60)
        began_s = time.monotonic()
        long = stream(server, chat("river " * 4500, max_tokens=1))
        ended_s = time.monotonic()
        is_read.set()
        results = [future.result(60) for future in streams]
    assert long.chunks[-1]["usage"]["prompt_tokens"] > 4500
    for result in results:
        times_s = [t for t in result.times_s if began_s <= t <= ended_s]
        # At least one token for each chunk of the prompt, 9 of 512 tokens, and no gap as long as several chunks.
        assert len(times_s) >= 6
        gaps_s = [
            later - earlier for earlier, later in zip([began_s, *times_s], [*times_s, ended_s], strict=True)
        ]
        assert max(gaps_s) < 0.6 * (ended_s - began_s)
    wait_until(server.is_idle)


class StopReading(Exception):
    """The client has seen enough and hangs up."""


@pytest.fixture(scope="module")
def narrow(
    weights_home: Path, nano_folder: CheckpointFolder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """A server with one place in the batch, one in the queue, and a cache of 512 tokens."""
    settings = {"max_num_seqs": 1, "max_queue": 1, "kv_cache_tokens": 512}
    with serving(weights_home, tmp_path_factory.mktemp("narrow"), **settings) as running:
        yield running


def test_prompt_may_fill_the_context_but_for_one_token(narrow: Serving) -> None:
    """Nothing is ever cut: neither to fit the model's context nor, as here, a cache that is smaller."""
    assert narrow.client.get(f"/v1/models/{MODEL}").json()["max_context_length"] == 512
    request = {"model": MODEL, "temperature": 0}

    def of_length(num_tokens: int) -> list[dict[str, Any]]:
        """Return messages whose prompt has so many tokens, and that nano goes on with rather than ends."""
        begun = {"role": "assistant", "content": " river" * (num_tokens - around), "prefix": True}
        return [{"role": "user", "content": "Go on."}, begun]

    around = 0
    around = (
        narrow.post(request | {"messages": of_length(1), "max_tokens": 1}).json()["usage"]["prompt_tokens"]
        - 1
    )

    full = narrow.post(request | {"messages": of_length(511)}).json()
    assert full["usage"]["prompt_tokens"] == 511
    assert full["usage"]["completion_tokens"] == 1
    assert full["choices"][0]["finish_reason"] == "model_length"
    assert narrow.post(request | {"messages": of_length(511), "max_tokens": 1}).status_code == 200
    assert (
        narrow.post(request | {"messages": of_length(511), "max_tokens": 2}).json()["param"] == "max_tokens"
    )
    over = narrow.post(request | {"messages": of_length(512)})
    assert over.status_code == 400
    assert over.json()["message"] == (
        "Prompt contains 512 tokens and 0 draft tokens, too large for model with 512 maximum context length"
    )


def test_full_queue_is_503_and_what_waits_is_answered(narrow: Serving) -> None:
    with ThreadPoolExecutor(2) as pool:
        running = threading.Event()
        first = pool.submit(
            stream, narrow, chat(ENDLESS.format("horse"), max_tokens=60), lambda streamed: running.set()
        )
        assert running.wait(60)
        waiting = pool.submit(stream, narrow, chat(ENDLESS.format("king"), max_tokens=4))
        wait_until(lambda: narrow.metric("mezzo_sequences_waiting") == 1, 10)
        for is_stream in (False, True):
            refused = narrow.post(chat(stream=is_stream))
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert (refused.json()["type"], refused.json()["code"]) == ("internal_server_error", "3800")
        assert first.result(60).finish_reason == waiting.result(60).finish_reason == "length"
    assert narrow.post(chat(n=2)).status_code == 200
    assert narrow.post(chat(n=3)).status_code == 503
    wait_until(narrow.is_idle)


def test_seeds_hold_in_a_batch_of_choices(server: Serving) -> None:
    fields = {"temperature": 1.3, "random_seed": 11, "max_tokens": 12}
    texts = {n: server.post(chat(n=n, **fields)).json()["choices"] for n in (1, 2, 16)}
    assert texts[1] == texts[16][:1]
    assert texts[2] == texts[16][:2]
    assert len({choice["message"]["content"] for choice in texts[16]}) > 12


@pytest.mark.parametrize("number", range(3))
def test_text_of_many_scripts_is_whole_in_every_chunk(server: Serving, number: int) -> None:
    prompt = [
        "Écris en français: été, déjà, où.",
        "日本語で答えてください。",
        "Answer only with emoji: 🐎🏽🇪🇺👩‍👩‍👧",
    ][number]
    request = chat(prompt, max_tokens=24, temperature=1.0, random_seed=number)
    whole = server.post(request).json()["choices"][0]["message"]["content"]
    assert stream(server, request).text == whole
