"""Cached tokens over HTTP: a real engine with a tiny model, real keys of two workspaces, and what they are charged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from mezzo.backends.embedded import make_embedded_backend
from mezzo.metering.reconcile import reconcile
from mezzo.settings import Settings
from mezzo.store.tables import usage_records
from mezzo.weights.folder import CheckpointFolder
from tests import tiny
from tests.prompt.mistral.tokenizers import write_tekken
from tests.server.live import MODEL, LiveServer, live_server

SYSTEM = "You answer in few words, and never in verse, whatever people say. " * 5
CONFIG = tiny.HF_CONFIG | {"vocab_size": 8100, "max_position_embeddings": 4096, "eos_token_id": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> CheckpointFolder:
    path = tiny.write_checkpoint(tmp_path_factory.mktemp("tiny"), **CONFIG)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    write_tekken(path / "tekken.json", "v13")
    return CheckpointFolder(path, "tiny", "tiny")


@pytest.fixture(scope="module")
def server(folder: CheckpointFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    chosen: dict[str, Any] = {"home": tmp_path_factory.mktemp("home"), "threads": 1, "kv_cache_tokens": 16384}
    backend = make_embedded_backend(folder, Settings(**chosen))
    with live_server(backend, **chosen) as live:
        yield live


class Client:
    """Somebody with a key of a workspace of their own."""

    def __init__(self, server: LiveServer, name: str) -> None:
        self.server = server
        self.workspace_id = server.make_workspace(name)
        key = server.make_key(workspace_id=self.workspace_id)
        self._headers = {"authorization": f"Bearer {key}"}

    def ask(self, messages: list[dict[str, str]], **fields: Any) -> dict[str, Any]:
        body = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 8} | fields
        url = self.server.url + "/v1/chat/completions"
        response = httpx.post(url, json=body, headers=self._headers, timeout=60, trust_env=False)
        assert response.status_code == 200, response.text
        if "stream" in fields:
            return json.loads(response.text.split("data: ")[-2])
        return response.json()


def cached(answer: dict[str, Any]) -> int:
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def opening(question: str = "Who are you?") -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def test_two_turns_of_a_chat_and_another_workspace(server: LiveServer) -> None:
    client, other = Client(server, "chatting"), Client(server, "chatting too")
    first = client.ask(opening(), max_tokens=80)
    num_first = first["usage"]["prompt_tokens"]
    assert num_first > 64
    assert cached(first) == 0
    said = first["choices"][0]["message"]["content"]
    turns = [*opening(), {"role": "assistant", "content": said}, {"role": "user", "content": "Why?"}]
    second = client.ask(turns)
    assert second["usage"]["prompt_tokens"] > num_first
    assert cached(second) >= num_first // 64 * 64
    assert cached(second) % 64 == 0
    of_other = [other.ask(turns) for _ in range(2)]
    assert [answer["choices"] for answer in of_other] == [second["choices"]] * 2
    assert cached(of_other[0]) == 0, "the same words of another workspace are new"
    assert cached(of_other[1]) > 0, "and then its own"
    assert cached(client.ask([{"role": "user", "content": "Hi"}])) == 0


def test_what_is_cached_costs_a_tenth_and_the_books_agree(server: LiveServer) -> None:
    client = Client(server, "paying")
    answers = [client.ask(opening(), n=2), client.ask(opening(), n=2), client.ask(opening(), stream=True)]
    num_prompt = answers[0]["usage"]["prompt_tokens"]
    num_cached = (num_prompt - 1) // 64 * 64
    assert [cached(answer) for answer in answers] == [0, num_cached, num_cached]
    assert {answer["usage"]["prompt_tokens"] for answer in answers} == {num_prompt}
    rows = [row for row in server.rows(usage_records) if row.workspace_id == client.workspace_id]
    assert sorted(row.cached_tokens for row in rows) == [0, num_cached, num_cached]
    for row in rows:
        assert row.prompt_tokens == num_prompt
        assert row.input_amount == (num_prompt - row.cached_tokens) * 400
        assert row.cached_input_amount == row.cached_tokens * 40
    with server.services.database.read() as connection:
        assert reconcile(connection).agrees


def test_metrics_tell_hits_and_tokens(server: LiveServer) -> None:
    def metrics() -> tuple[float, float, float]:
        return (
            server.metric("mezzo_prefix_cache_requests_total", weights="tiny", cache="hit"),
            server.metric("mezzo_prefix_cache_requests_total", weights="tiny", cache="miss"),
            server.metric("mezzo_prefix_cache_tokens_total", weights="tiny"),
        )

    client = Client(server, "measuring")
    hits, misses, num_tokens = metrics()
    client.ask(opening())
    num_cached = cached(client.ask(opening()))
    assert num_cached > 0
    assert metrics() == (hits + 1, misses + 1, num_tokens + num_cached)


def test_chats_at_once_wait_for_their_common_beginning(server: LiveServer) -> None:
    client = Client(server, "many")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: client.ask(opening(f"{i}?")), range(8)))
    num_shared = min(answer["usage"]["prompt_tokens"] for answer in answers) // 64 * 64
    assert sorted(cached(answer) for answer in answers) == [0] + [num_shared] * 7


def test_switched_off_nothing_is_cached_or_claimed(folder: CheckpointFolder, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"home": tmp_path, "threads": 1, "prefix_cache": False, "kv_cache_tokens": 4096}
    with live_server(make_embedded_backend(folder, Settings(**chosen)), **chosen) as live:
        client = Client(live, "without")
        assert [cached(client.ask(opening())) for _ in range(2)] == [0, 0]
        assert live.metric("mezzo_tokens_total", kind="cached") == 0
