"""GET /v1/admin/usage: who may ask, for what, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import jsonschema
import pytest

from mezzo.accounts.audit import OPERATOR
from mezzo.accounts.keys import create_admin_key
from mezzo.protocol.admin.usage import UsageQuery
from mezzo.store.database import Database
from tests.metering.rows import MODEL, add_organization, add_records, new_id, record, set_up
from tests.server.admin.admin_server import AdminServer

NOW = datetime(2026, 9, 20, tzinfo=UTC)


class UsageServer:
    """A server on a loopback port with this route alone, and an organisation that used something."""

    def __init__(self, database: Database) -> None:
        set_up(database)
        self.workspace, self.another = new_id("workspace"), new_id("workspace")
        self.organization = add_organization(database, self.workspace)
        add_organization(database, self.another)
        add_records(
            database,
            [
                record(self.organization, self.workspace, "2026-09-05 00:00:00+00:00"),
                record(self.organization, "gone", "2026-05-05 00:00:00+00:00"),
            ],
        )
        with database.write() as connection:
            _, self.key = create_admin_key(
                connection, organization_id=self.organization, actor=OPERATOR, now=NOW
            )
        self.server = AdminServer(database)
        self.server.now = NOW
        self.server.start()

    def get(self, query: str = "") -> httpx.Response:
        return self.server.http.get(f"/usage{query}", headers={"x-api-key": self.key})

    def stop(self) -> None:
        self.server.stop()


@pytest.fixture(scope="module")
def usage(shared_database: Database) -> Iterator[UsageServer]:
    server = UsageServer(shared_database)
    yield server
    server.stop()


def models(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return dict(response.json()["completion"]["models"])


def test_the_present_month_if_none_is_named(usage: UsageServer) -> None:
    body = usage.get().json()
    assert body["start_date"] == "2026-09-01T00:00:00Z"
    assert [row["value"] for row in body["completion"]["models"][MODEL]["input"]] == [900]


@pytest.mark.parametrize("query", ["?month=5", "?month=05", "?month=5&year=2026"])
def test_another_month_with_or_without_a_leading_zero(usage: UsageServer, query: str) -> None:
    (row,) = models(usage.get(query))[MODEL]["input"]
    assert row["timestamp"] == "2026-05-05"


def test_one_workspace(usage: UsageServer) -> None:
    assert models(usage.get(f"?workspace_id={usage.workspace}"))
    assert models(usage.get(f"?workspace_id={usage.workspace}&month=5")) == {}


def test_a_workspace_of_another_organisation_is_not_there(usage: UsageServer) -> None:
    for workspace in (usage.another, "nowhere"):
        response = usage.get(f"?workspace_id={workspace}")
        assert response.status_code == 404
        assert list(response.json()) == ["detail"]


def test_zones_that_are_not_here_are_empty(usage: UsageServer) -> None:
    assert models(usage.get("?api_zone=global"))
    assert models(usage.get("?api_zone=eu")) == models(usage.get("?api_zone=us")) == {}


@pytest.mark.parametrize(
    ("query", "name", "kind"),
    [
        ("month=0", "month", "string_pattern_mismatch"),
        ("month=13", "month", "string_pattern_mismatch"),
        ("month=005", "month", "string_pattern_mismatch"),
        ("month=%D9%A5", "month", "string_pattern_mismatch"),
        ("month=", "month", "string_pattern_mismatch"),
        ("month=5&month=6", "month", "string_type"),
        ("year=26", "year", "string_pattern_mismatch"),
        ("year=9999", "year", "string_pattern_mismatch"),
        ("api_zone=asia", "api_zone", "literal_error"),
        ("workspace_id=", "workspace_id", "string_too_short"),
        ("workspace_id=%00", "workspace_id", "string_pattern_mismatch"),
        (f"workspace_id={'x' * 65}", "workspace_id", "string_too_long"),
        ("workspace=1", "workspace", "extra_forbidden"),
    ],
)
def test_a_value_that_does_not_fit_is_named(usage: UsageServer, query: str, name: str, kind: str) -> None:
    response = usage.get("?" + query)
    assert response.status_code == 422
    (item,) = response.json()["detail"]
    assert (item["loc"], item["type"]) == (["query", name], kind)
    assert "msg" in item


def test_without_a_key(usage: UsageServer) -> None:
    assert usage.server.http.get("/usage").status_code == 401


def test_the_description_is_of_what_is_answered(usage: UsageServer) -> None:
    document = usage.server.description
    operation = document["paths"]["/v1/admin/usage"]["get"]
    assert {parameter["name"] for parameter in operation["parameters"]} == set(UsageQuery.model_fields)
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator({**schema, "components": document["components"]})
    for query in ("", "?month=5", "?api_zone=eu"):
        validator.validate(usage.get(query).json())
