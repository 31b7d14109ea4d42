"""A month's usage in the shape of the reference's admin API."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from mezzo.accounts.errors import NotThere
from mezzo.metering.periods import UTC_ZONE, Month, Period
from mezzo.metering.usage import TOKEN_KINDS, UsageSum, sum_usage
from mezzo.protocol.admin.usage import Group, ModelsUsage, UsageOfDay, UsagePrice, UsageReport, Zone
from mezzo.store.tables import installation, prices, workspaces

CURRENCY_SYMBOLS = {"USD": "$", "EUR": "€"}

_MILLISECOND = timedelta(milliseconds=1)


def usage_report(
    connection: Connection,
    organization_id: str,
    month: Month,
    *,
    now: datetime,
    workspace_id: str | None = None,
    zone: Zone = "global",
) -> UsageReport:
    """Return what an organisation, or one workspace of it, used in a month in UTC.

    zone: everything here is in `global`; the others are empty. Values are tokens that were billed.
    Raises: NotThere for a workspace of another organisation.
    """
    if workspace_id is not None:
        _check_workspace(connection, organization_id, workspace_id)
    period = Period.of_month(month, UTC_ZONE)
    currency = connection.execute(sa.select(installation.c.currency)).scalar_one()
    sums: Iterable[UsageSum] = ()
    if zone == "global":
        sums = sum_usage(
            connection, organization_id, period, by=("day", "model", "tier"), workspace_id=workspace_id
        )
    following = Month.at(period.end, UTC_ZONE)
    return UsageReport(
        completion=ModelsUsage(models=_by_model(sums)),
        date=_text(period.start),
        start_date=_text(period.start),
        end_date=_text(period.end - _MILLISECOND, "milliseconds"),
        previous_month=str(Month.at(period.start - _MILLISECOND, UTC_ZONE)),
        next_month=str(following) if period.end <= now else None,
        currency=currency,
        currency_symbol=CURRENCY_SYMBOLS[currency],
        prices=_prices(connection, period, currency) if zone == "global" else [],
    )


def _check_workspace(connection: Connection, organization_id: str, workspace_id: str) -> None:
    """Check that a workspace is, or was, the organisation's. Raises: NotThere."""
    found = workspaces.c.id == workspace_id, workspaces.c.organization_id == organization_id
    # PostgreSQL has no text with a NUL in it, and would fail.
    if "\0" in workspace_id or connection.execute(sa.select(workspaces.c.id).where(*found)).first() is None:
        raise NotThere(f"Workspace {workspace_id} not found")


def _by_model(sums: Iterable[UsageSum]) -> dict[str, dict[Group, list[UsageOfDay]]]:
    models: dict[str, dict[Group, list[UsageOfDay]]] = {}
    for found in sums:
        assert found.day is not None
        assert found.model_id is not None
        assert found.service_tier is not None
        for kind in TOKEN_KINDS:
            if tokens := found.tokens_of(kind):
                groups = models.setdefault(found.model_id, {})
                groups.setdefault(kind, []).append(
                    UsageOfDay(
                        timestamp=found.day.isoformat(),
                        value=tokens,
                        billing_metric=found.model_id,
                        billing_group=kind,
                        service_tier=found.service_tier,
                    )
                )
    return models


def _prices(connection: Connection, period: Period, currency: str) -> list[UsagePrice]:
    """Return the prices that were in force in a period: each until the next one of its model and tier begins."""
    rows = connection.execute(
        sa.select(prices)
        .where(prices.c.currency == currency, prices.c.valid_from < period.end)
        .order_by(prices.c.valid_from.desc(), prices.c.id)
    )
    in_force: list[Row[Any]] = []
    covered: set[tuple[str, str]] = set()  # models and tiers whose price at the period's beginning was found
    for row in rows:
        name = (row.model_id, row.service_tier)
        if name not in covered:
            in_force.append(row)
            if row.valid_from <= period.start:
                covered.add(name)
    in_force.sort(key=lambda row: (row.model_id, row.service_tier, row.valid_from))
    return [price for row in in_force for price in _wire_prices(row)]


def _wire_prices(row: Row[Any]) -> list[UsagePrice]:
    return [
        UsagePrice(
            billing_metric=row.model_id,
            billing_group=kind,
            service_tier=row.service_tier,
            price=_per_token(getattr(row, f"{kind}_per_million")),
        )
        for kind in TOKEN_KINDS
    ]


def _text(moment: datetime, precision: str = "seconds") -> str:
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def _per_token(per_million: str) -> str:
    """Write a price per million tokens as one per token, without an exponent: `0.40` is `0.0000004`."""
    text = f"{Decimal(per_million).scaleb(-6):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
