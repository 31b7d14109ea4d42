"""An invoice: an organisation's usage records of one month, added up line by line.

Nothing on it is computed from prices. Each line is the sum of what its records cost, so the total is the sum of all
records to the nano-unit; the price stands beside it to show where the amounts came from. Records and prices never
change, and nothing else of the database is on an invoice, so a final one is the same whenever it is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from mezzo.metering.periods import Month, Period, PeriodInvalid
from mezzo.metering.usage import TOKEN_KINDS, TokenKind, UsageSum, sum_usage
from mezzo.store.tables import installation, open_requests, prices

SETTLING_TIME = timedelta(hours=1)
"""How long after a month's end a request may still be entered that was admitted in it: a server was slow to write, or
its clock is behind."""

_NUMBER_PREFIX_LENGTH = 8


class BooksContradictory(Exception):
    """Records that cannot be invoiced as they are: a fault of the books, which somebody has to look at."""


@dataclass(frozen=True, slots=True)
class Line:
    """Tokens of one kind, of one model, at one price.

    per_million   the price in units of the currency per million tokens, as the books have it
    amount        what they cost, in nano-units: the sum over the records
    """

    model_id: str
    service_tier: str
    kind: TokenKind
    price_id: str
    tokens: int
    per_million: str
    amount: int


@dataclass(frozen=True, slots=True)
class Section:
    """The lines of one workspace."""

    workspace_id: str
    lines: tuple[Line, ...]

    @property
    def amount(self) -> int:
        """The subtotal in nano-units."""
        return sum(line.amount for line in self.lines)

    @property
    def groups(self) -> list[tuple[Line, ...]]:
        """The lines of each model, tier and price together, as people read them."""
        found = groupby(self.lines, lambda line: (line.model_id, line.service_tier, line.price_id))
        return [tuple(lines) for _, lines in found]


@dataclass(frozen=True, slots=True)
class Invoice:
    """One month of one organisation.

    number        names the organisation, the month, and the time zone where it is not UTC
    provisional   why it can still change, as half a sentence; None for a final invoice
    """

    number: str
    organization_id: str
    month: Month
    period: Period
    currency: str
    provisional: str | None
    sections: tuple[Section, ...]

    @property
    def amount(self) -> int:
        """The total in nano-units: the sum of what all records of the month cost."""
        return sum(section.amount for section in self.sections)


def make_invoice(
    connection: Connection, organization_id: str, month: Month, *, zone: ZoneInfo, now: datetime
) -> Invoice:
    """Add up a month of an organisation. zone: whose midnights begin and end it.

    Raises: PeriodInvalid for a month that has not begun; BooksContradictory.
    """
    period = Period.of_month(month, zone)
    if period.start > now:
        raise PeriodInvalid(f"{month} has not begun")
    currency = connection.execute(sa.select(installation.c.currency)).scalar_one()
    # Before the sums: a request that ends in between makes the invoice provisional, and is on it.
    provisional = _why_provisional(connection, organization_id, period, now)
    sums = list(sum_usage(connection, organization_id, period, by=("workspace", "model", "tier", "price")))
    price_rows = _find_prices(connection, {found.price_id for found in sums})
    for found in sums:
        _check(found, price_rows, currency)
    return Invoice(
        number=_number(organization_id, month, zone),
        organization_id=organization_id,
        month=month,
        period=period,
        currency=currency,
        provisional=provisional,
        sections=_sections(sums, price_rows),
    )


def _number(organization_id: str, month: Month, zone: ZoneInfo) -> str:
    prefix = organization_id.replace("-", "")[:_NUMBER_PREFIX_LENGTH].upper()
    suffix = "" if zone.key == "UTC" else f"-{zone.key.replace('/', '.')}"
    return f"{prefix}-{month}{suffix}"


def _why_provisional(
    connection: Connection, organization_id: str, period: Period, now: datetime
) -> str | None:
    if now < period.end:
        return "the month is not over"
    if now < period.end + SETTLING_TIME:
        return "the month ended less than an hour ago"
    num_open = connection.execute(
        sa.select(sa.func.count())
        .select_from(open_requests)
        .where(
            open_requests.c.organization_id == organization_id,
            open_requests.c.created_at >= period.start,
            open_requests.c.created_at < period.end,
        )
    ).scalar_one()
    return f"requests of the month that have not ended: {num_open}" if num_open else None


def _find_prices(connection: Connection, ids: Iterable[str | None]) -> Mapping[str, Row[Any]]:
    rows = connection.execute(sa.select(prices).where(prices.c.id.in_(sorted(filter(None, ids)))))
    return {row.id: row for row in rows}


def _check(found: UsageSum, price_rows: Mapping[str, Row[Any]], currency: str) -> None:
    """Refuse to invoice what cannot be right. Raises: BooksContradictory."""
    if found.unbilled_amount:
        raise BooksContradictory(
            f"requests of workspace {found.workspace_id} that cost nothing have amounts in the books: "
            f"{found.unbilled_amount} nano-units at price {found.price_id}"
        )
    price = price_rows.get(found.price_id or "")
    if price is None:
        raise BooksContradictory(
            f"the price {found.price_id}, which requests were charged, is not in the books"
        )
    if price.currency != currency:
        raise BooksContradictory(f"the price {price.id} is in {price.currency}, the books are in {currency}")


def _sections(sums: Iterable[UsageSum], price_rows: Mapping[str, Row[Any]]) -> tuple[Section, ...]:
    by_workspace: dict[str, list[Line]] = {}
    for found in sums:
        assert found.workspace_id is not None
        assert found.price_id is not None
        lines = _lines(found, price_rows[found.price_id])
        if lines:
            by_workspace.setdefault(found.workspace_id, []).extend(lines)
    return tuple(Section(workspace_id, tuple(lines)) for workspace_id, lines in by_workspace.items())


def _lines(found: UsageSum, price: Row[Any]) -> list[Line]:
    assert found.model_id is not None
    assert found.service_tier is not None
    return [
        Line(
            model_id=found.model_id,
            service_tier=found.service_tier,
            kind=kind,
            price_id=price.id,
            tokens=found.tokens_of(kind),
            per_million=getattr(price, f"{kind}_per_million"),
            amount=found.amount_of(kind),
        )
        for kind in TOKEN_KINDS
        if found.tokens_of(kind) or found.amount_of(kind)
    ]
