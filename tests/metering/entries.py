"""Openings and settlements for tests, of requests that never were."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from mezzo.accounts.access import Access, SpendLimit
from mezzo.kit.ids import new_request_id
from mezzo.metering.journal import Journal
from mezzo.metering.prices import Price
from mezzo.metering.records import Opening, Settlement, Status, Usage

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
MONTH = "2026-09"

PRICE = Price(
    id="mistral-medium-2505/USD/standard/2025-05-07T00:00:00Z",
    model_id="mistral-medium-2505",
    currency="USD",
    service_tier="standard",
    valid_from=datetime(2025, 5, 7, tzinfo=UTC),
    input=Decimal("0.40"),
    cached_input=Decimal("0.04"),
    output=Decimal("2.00"),
)

ACCESS = Access(
    key_id="key",
    label="mz-…abcd",
    kind="api",
    organization_id="organization",
    workspace_id="workspace",
    user_id=None,
    expires_at=None,
)


def limited(limit: int, scope: str = "workspace") -> Access:
    """Return what a key may do whose month may cost so much."""
    scope_id = {"organization": "organization", "workspace": "workspace", "api_key": "key"}[scope]
    return replace(ACCESS, spend_limits=(SpendLimit(scope, scope_id, limit),))


def opening(**changed: Any) -> Opening:
    """Return the opening of a request of at most 10 prompt and 5 completion tokens: 4,000 + 10,000 nano-dollars."""
    given: dict[str, Any] = {
        "id": new_request_id(),
        "access": ACCESS,
        "created_at": NOW,
        "route": "/v1/chat/completions",
        "model": "mistral-medium-latest",
        "model_id": "mistral-medium-2505",
        "weights": "fake",
        "engine_run_id": None,
        "is_stream": False,
        "price": PRICE,
        "max_prompt_tokens": 10,
        "max_completion_tokens": 5,
    }
    return Opening(**given | changed)


def settlement(of: Opening, status: Status = "finished", **used: Any) -> Settlement:
    """Return the end of a request that used all it could, with 3 prompt tokens cached, unless `used` differs."""
    usage = {"prompt_tokens": 10, "cached_tokens": 3, "completion_tokens": 5} | used
    return Settlement(opening=of, status=status, usage=Usage(**usage), latency_us=1000)


async def enter(journal: Journal, of: Opening) -> None:
    """Open a request and wait until that is written."""
    await (await journal.open(of))
