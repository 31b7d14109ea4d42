"""The cards of what is served."""

from __future__ import annotations

import httpx

from tests.fakes import FakeBackend
from tests.server.live import NOW, LiveServer, assert_error, live_server


def test_list_has_a_card_for_every_name_that_is_answered(server: LiveServer) -> None:
    response = server.client.get("/v1/models")
    assert response.headers["content-type"] == "application/json"
    assert not [name for name in response.headers if name.startswith("x-ratelimit")]
    body = response.json()
    assert body["object"] == "list"
    assert {card["id"] for card in body["data"]} == {
        "mistral-medium-2505",
        "mistral-medium-latest",
        "mistral-medium-2312",
        "mistral-medium",
    }


def test_card_promises_what_the_weights_hold() -> None:
    with live_server(FakeBackend(max_context_length=2048)) as live:
        card = live.client.get("/v1/models/mistral-medium-latest").json()
    assert card["id"] == "mistral-medium-latest"
    assert card["name"] == "mistral-medium-2505"
    assert card["created"] == int(NOW.timestamp())
    assert card["max_context_length"] == 2048
    assert card["capabilities"]["completion_chat"] is True
    assert card["capabilities"]["vision"] is False
    assert "fake weights" in card["description"]
    assert card["type"] == "base"


def test_card_of_a_retired_name_tells_its_replacement(server: LiveServer) -> None:
    card = server.client.get("/v1/models/mistral-medium").json()
    assert card["deprecation"] == "2025-06-16T00:00:00Z"
    assert card["deprecation_replacement_model"] == "mistral-medium-2505"


def test_unknown_names_are_404(server: LiveServer) -> None:
    for name in ("nope", "org/name", "mistral-medium-2508", "MISTRAL-MEDIUM-LATEST", "a%20b"):
        assert_error(server.client.get(f"/v1/models/{name}"), 404)


def test_strict_lifecycle_leaves_retired_names_out() -> None:
    with live_server(strict_lifecycle=True) as live:
        names = {card["id"] for card in live.client.get("/v1/models").json()["data"]}
        assert names == {"mistral-medium-2505", "mistral-medium-latest"}


def test_filters(server: LiveServer) -> None:
    def ids(**query: str) -> list[str]:
        return [card["id"] for card in server.client.get("/v1/models", params=query).json()["data"]]

    assert ids(model="mistral-medium") == ["mistral-medium"]
    assert ids(model="nope") == []
    assert len(ids(provider="mistralai")) == 4
    assert ids(provider="other") == []


def test_needs_a_key(server: LiveServer) -> None:
    assert_error(httpx.get(server.url + "/v1/models", trust_env=False), 401, detail="Unauthorized")
