"""Probes, metrics and the description of the API."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import jsonschema
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes import Script
from tests.server.live import KEY, LiveServer, chat, events_of

METRICS_PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def get(server: LiveServer, path: str) -> httpx.Response:
    return httpx.get(server.url + path, trust_env=False)


def test_healthz_needs_no_key(server: LiveServer) -> None:
    assert get(server, "/healthz").json() == {"status": "ok"}


def test_readyz_is_what_the_backends_are(server: LiveServer) -> None:
    assert (get(server, "/readyz").status_code, get(server, "/readyz").json()) == (200, {"status": "ready"})
    server.backend.is_ready = False
    try:
        response = get(server, "/readyz")
        assert response.status_code == 503
        assert response.json() == {"status": "unavailable", "reason": "not ready: fake"}
        assert get(server, "/healthz").status_code == 200
        assert server.metric("mezzo_backend_ready", weights="fake") == 0
    finally:
        server.backend.is_ready = True


def test_metrics_tell_the_engines_numbers(server: LiveServer) -> None:
    assert server.metric("mezzo_sequences_waiting", weights="fake") == 1
    assert server.metric("mezzo_sequences_running", weights="fake") == 2
    assert server.metric("mezzo_kv_cache_blocks", weights="fake") == 10
    assert server.metric("mezzo_kv_cache_used_blocks", weights="fake") == 6
    assert server.metric("mezzo_preemptions_total", weights="fake") == 5
    assert server.metric("mezzo_engine_restarts_total", weights="fake") == 3


def test_metrics_hold_no_key(server: LiveServer) -> None:
    server.post(chat())
    text = get(server, "/metrics").text
    assert KEY not in text
    # Moments of creation are numbers that may hold the same four digits.
    lines = [line for line in text.splitlines() if "_created" not in line]
    assert KEY[-4:] not in "\n".join(lines)


def test_every_metric_is_documented_and_nothing_else(server: LiveServer) -> None:
    server.post(chat())
    exposed = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(get(server, "/metrics").text)
        if not family.name.endswith("_created")
    }
    documented = set(re.findall(r"^\| `(mezzo_\w+)`", METRICS_PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert exposed == documented


def test_documented_labels_are_those_exposed(server: LiveServer) -> None:
    server.post(chat())
    rows = re.findall(
        r"^\| `(mezzo_\w+)` \| \w+ \|([^|]*)\|", METRICS_PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    documented = {name.removesuffix("_total"): set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    for family in text_string_to_metric_families(get(server, "/metrics").text):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                assert set(sample.labels) - {"le"} == documented[family.name], sample.name


class TestOpenApi:
    def test_describes_the_routes(self, server: LiveServer) -> None:
        document = get(server, "/openapi.json").json()
        # The calls of the admin API and of sign-in are listed in their own tests.
        assert {path for path in document["paths"] if not path.startswith(("/v1/admin/", "/auth/"))} == {
            "/v1/chat/completions",
            "/v1/fim/completions",
            "/v1/models",
            "/v1/models/{model_id}",
            "/healthz",
            "/readyz",
            "/metrics",
        }

    def test_every_reference_leads_somewhere(self, server: LiveServer) -> None:
        response = get(server, "/openapi.json")
        schemas = response.json()["components"]["schemas"]
        names = set(re.findall(r'"#/components/schemas/([^"]+)"', response.text))
        assert names
        assert names <= schemas.keys()

    def test_answers_fit_their_schemas(self, server: LiveServer) -> None:
        document = get(server, "/openapi.json").json()
        server.backend.script = Script(text="abc", step_s=0.01)
        check = make_checker(document)
        check("ChatCompletionResponse", server.post(chat()).json())
        for event in events_of(server.post(chat(stream=True)).text)[:-1]:
            check("ChatCompletionChunk", httpx.Response(200, text=event).json())
        check("ModelList", server.client.get("/v1/models").json())
        check("ModelCard", server.client.get("/v1/models/mistral-medium").json())
        check("DomainError", server.post({**chat(), "model": "nope"}).json())
        check("ValidationError", server.post({}).json())
        check("DetailError", get(server, "/v1/models").json())
        check("RouteError", get(server, "/nope").json())

    def test_requests_that_are_accepted_fit_their_schema(self, server: LiveServer) -> None:
        check = make_checker(get(server, "/openapi.json").json())
        body = chat(temperature=0.5, n=2, stop=["x"], metadata={"a": 1}, random_seed=1)
        assert server.post(body).status_code == 200
        check("ChatCompletionRequest", body)


def make_checker(document: dict):
    def check(name: str, value: object) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(value)

    return check
