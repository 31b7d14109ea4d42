"""Rows for tests of what is read from the books: an organisation, its workspaces, prices, records."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from mezzo.store.database import Database
from mezzo.store.tables import (
    api_keys,
    installation,
    open_requests,
    organizations,
    prices,
    usage_records,
    workspaces,
)

MODEL = "mistral-medium-2505"
START = datetime(2025, 5, 7, tzinfo=UTC)
PER_MILLION = {  # of the reference's price page: input, cached input, output
    "standard": ("0.40", "0.04", "2.00"),
    "priority": ("0.70", "0.07", "3.50"),
    "batch": ("0.20", "0.02", "1.00"),
}
_counter = itertools.count()


def new_id(prefix: str = "id") -> str:
    """Return an id that no other test has."""
    return f"{prefix}-{next(_counter):06d}"


def price_id(tier: str = "standard", model: str = MODEL, currency: str = "USD") -> str:
    return f"{model}/{currency}/{tier}/2025-05-07T00:00:00Z"


def set_up(database: Database, *, currency: str = "USD") -> None:
    """Write what a first start would: the installation, and the prices of one model."""
    with database.write() as connection:
        connection.execute(
            sa.insert(installation).values(
                id=1, currency=currency, secret_fingerprint="f" * 64, created_at=START
            )
        )
        connection.execute(
            sa.insert(prices),
            [
                {
                    "id": price_id(tier, currency=currency),
                    "model_id": MODEL,
                    "currency": currency,
                    "service_tier": tier,
                    "valid_from": START,
                    "input_per_million": input_price,
                    "cached_input_per_million": cached_price,
                    "output_per_million": output_price,
                }
                for tier, (input_price, cached_price, output_price) in PER_MILLION.items()
            ],
        )


def add_organization(
    database: Database, *workspace_ids: str, organization_id: str | None = None, name: str = "Acme"
) -> str:
    """Write an organisation with these workspaces, the first its default one; return its id."""
    organization_id = organization_id or new_id("organization")
    with database.write() as connection:
        connection.execute(sa.insert(organizations).values(id=organization_id, name=name, created_at=START))
        for position, workspace_id in enumerate(workspace_ids):
            connection.execute(
                sa.insert(workspaces).values(
                    id=workspace_id,
                    organization_id=organization_id,
                    name=f"Name of {workspace_id}",
                    is_default=position == 0,
                    has_priority=False,
                    created_at=START,
                )
            )
    return organization_id


def add_key(
    database: Database, organization_id: str, workspace_id: str, key_id: str, name: str | None
) -> None:
    with database.write() as connection:
        connection.execute(
            sa.insert(api_keys).values(
                id=key_id,
                kind="api",
                organization_id=organization_id,
                workspace_id=workspace_id,
                name=name,
                secret_hash=key_id,
                hidden="mz-…9fQz",
                created_at=START,
            )
        )


def record(organization_id: str, workspace_id: str, at: str | datetime, **changed: Any) -> dict[str, Any]:
    """Return a usage record: a request that used 1,000 prompt tokens, 100 of them cached, and 50 for its answer.

    Its amounts are those of its tier, unless they are given.
    """
    tier = changed.get("service_tier", "standard")
    row: dict[str, Any] = {
        "id": new_id("request"),
        "organization_id": organization_id,
        "workspace_id": workspace_id,
        "api_key_id": "key",
        "created_at": datetime.fromisoformat(at) if isinstance(at, str) else at,
        "route": "/v1/chat/completions",
        "model": "mistral-medium-latest",
        "model_id": MODEL,
        "weights": "nano",
        "service_tier": tier,
        "is_stream": False,
        "status": "finished",
        "prompt_tokens": 1000,
        "cached_tokens": 100,
        "image_tokens": 0,
        "completion_tokens": 50,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
        "is_estimated": False,
        "latency_us": 1,
        "price_id": price_id(tier),
    } | changed
    row["month"] = row["created_at"].astimezone(UTC).strftime("%Y-%m")
    amounts = _amounts(row)
    for name, amount in amounts.items():
        row.setdefault(name, amount)
    row["amount"] = row["input_amount"] + row["cached_input_amount"] + row["output_amount"]
    return row


def _amounts(row: Mapping[str, Any]) -> dict[str, int]:
    """Return what the catalog's prices make of a record's tokens, in nano-units; they have no remainder."""
    is_billed = row["status"] == "finished" or (row["status"] == "aborted" and row["completion_tokens"] > 0)
    input_price, cached_price, output_price = PER_MILLION[row["service_tier"]]
    tokens = {
        "input_amount": (row["prompt_tokens"] - row["cached_tokens"], input_price),
        "cached_input_amount": (row["cached_tokens"], cached_price),
        "output_amount": (row["completion_tokens"], output_price),
    }
    return {
        name: int(count * Decimal(price) * 1000) if is_billed else 0
        for name, (count, price) in tokens.items()
    }


def add_records(database: Database, rows: Iterable[Mapping[str, Any]]) -> None:
    with database.write() as connection:
        connection.execute(sa.insert(usage_records), [dict(row) for row in rows])


def add_open_request(database: Database, organization_id: str, at: str) -> str:
    """Write a request that was admitted and has not ended; return its id."""
    request_id = new_id("open")
    with database.write() as connection:
        connection.execute(
            sa.insert(open_requests).values(
                id=request_id,
                server_id="server",
                organization_id=organization_id,
                workspace_id="w",
                api_key_id="key",
                created_at=datetime.fromisoformat(at),
                month=at[:7],
                route="/v1/chat/completions",
                model=MODEL,
                model_id=MODEL,
                weights="nano",
                service_tier="standard",
                is_stream=False,
                price_id=price_id(),
                reserved=1,
            )
        )
    return request_id
