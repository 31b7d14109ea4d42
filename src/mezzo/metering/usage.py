"""How much was used: sums over usage records, by any of their properties. The database adds integers, so that they are
exact; each sum is over one state of the database.

Tokens are those that were billed. Requests that cost nothing, because they failed on our side or because their client
left before the first token, are counted as requests alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from mezzo.metering.periods import Day, Period
from mezzo.metering.records import BILLED, Status
from mezzo.store.columns import Moment
from mezzo.store.tables import usage_records

Dimension = Literal["day", "workspace", "key", "model", "tier", "price"]
TokenKind = Literal["input", "cached_input", "output"]

DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
STATUSES: tuple[Status, ...] = get_args(Status)
TOKEN_KINDS: tuple[TokenKind, ...] = get_args(TokenKind)

# A database takes a bounded number of parameters; a day needs three.
_MAX_DAYS_AT_ONCE = 366
_ROWS_AT_ONCE = 1000

_records = usage_records.c
_COLUMNS: dict[Dimension, sa.Column[str]] = {
    "workspace": _records.workspace_id,
    "key": _records.api_key_id,
    "model": _records.model_id,
    "tier": _records.service_tier,
    "price": _records.price_id,
}
# `Settlement.amounts` decides what is billed; this is the same for the database, and a test holds them together.
_IS_BILLED = _records.status.in_(sorted(BILLED)) & (
    (_records.status != "aborted") | (_records.completion_tokens > 0)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSum:
    """What records have in common, where it was asked for, and what they add up to.

    input_tokens       prompt tokens that were not cached, those of images among them
    image_tokens       of the whole prompt, cached or not
    *_amount           nano-units of the installation's currency
    unbilled_amount    what records cost that should cost nothing: anything but 0 is a fault of the books
    """

    day: date | None = None
    workspace_id: str | None = None
    api_key_id: str | None = None
    model_id: str | None = None
    service_tier: str | None = None
    price_id: str | None = None
    num_finished: int
    num_aborted: int
    num_failed: int
    num_interrupted: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    image_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int
    input_amount: int
    cached_input_amount: int
    output_amount: int
    unbilled_amount: int

    @property
    def num_requests(self) -> int:
        """Requests, however they ended."""
        return self.num_finished + self.num_aborted + self.num_failed + self.num_interrupted

    @property
    def amount(self) -> int:
        """What they cost together."""
        return self.input_amount + self.cached_input_amount + self.output_amount

    def tokens_of(self, kind: TokenKind) -> int:
        """Return the tokens of one kind."""
        return int(getattr(self, f"{kind}_tokens"))

    def amount_of(self, kind: TokenKind) -> int:
        """Return what the tokens of one kind cost."""
        return int(getattr(self, f"{kind}_amount"))


def sum_usage(
    connection: Connection,
    organization_id: str,
    period: Period,
    *,
    by: Collection[Dimension] = (),
    workspace_id: str | None = None,
    api_key_id: str | None = None,
) -> Iterator[UsageSum]:
    """Yield the sums over an organisation's records of a period, one for each combination in `by` that occurs.

    In the order of `by`, but days first, and ids by their bytes. With nothing in `by` there is exactly one sum.
    Rows come from the database as they are taken, so that there may be very many; a period of more than a year by day
    is more than one query. workspace_id, api_key_id: only their records.
    """
    by = list(dict.fromkeys(by))
    wanted = [
        _records.organization_id == organization_id,
        *([_records.workspace_id == workspace_id] if workspace_id is not None else []),
        *([_records.api_key_id == api_key_id] if api_key_id is not None else []),
    ]
    if "day" not in by:
        within = (_records.created_at >= period.start) & (_records.created_at < period.end)
        yield from _run(connection, _select(connection, by).where(*wanted, within), by)
        return
    # Days come first whatever the place of "day", for those of one year are read before those of the next.
    ordered: list[Dimension] = ["day", *(dimension for dimension in by if dimension != "day")]
    days = period.days()
    while some := list(islice(days, _MAX_DAYS_AT_ONCE)):
        yield from _run(connection, _select_by_day(connection, ordered, some).where(*wanted), ordered)


def total_usage(
    connection: Connection, organization_id: str, period: Period, *, workspace_id: str | None = None
) -> UsageSum:
    """Return the sum over all of a period's records, or a workspace's."""
    (total,) = sum_usage(connection, organization_id, period, workspace_id=workspace_id)
    return total


def _select(connection: Connection, by: Collection[Dimension]) -> sa.Select[Any]:
    columns: list[sa.ColumnElement[Any]] = [_COLUMNS[dimension] for dimension in by if dimension != "day"]
    statement = sa.select(*columns, *_sums()).group_by(*columns)
    return statement.order_by(*(_by_bytes(connection, column) for column in columns))


def _select_by_day(connection: Connection, by: Collection[Dimension], days: Sequence[Day]) -> sa.Select[Any]:
    """Join each record with its day. What a day is, only we know: databases have other time zones, or none."""
    table = (
        sa.values(sa.column("day", sa.String), sa.column("start", Moment), sa.column("end", Moment))
        .data([(day.date.isoformat(), day.start, day.end) for day in days])
        .cte("days")
    )
    columns = [_COLUMNS[dimension] for dimension in by if dimension != "day"]
    return (
        sa.select(table.c.day, *columns, *_sums())
        .select_from(
            table.join(
                usage_records,
                (_records.created_at >= table.c.start) & (_records.created_at < table.c.end),
            )
        )
        .group_by(table.c.day, *columns)
        .order_by(table.c.day, *(_by_bytes(connection, column) for column in columns))
    )


def _by_bytes(connection: Connection, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """Return what sorts text alike in every database, whatever its language."""
    return column.collate("BINARY" if connection.dialect.name == "sqlite" else "C")


def _sums() -> list[sa.Label[Any]]:
    sums: dict[str, sa.ColumnElement[Any]] = {
        **{
            f"num_{status}": _sum_if(_records.status == status, sa.literal_column("1")) for status in STATUSES
        },
        "input_tokens": _sum_if(_IS_BILLED, _records.prompt_tokens - _records.cached_tokens),
        "cached_input_tokens": _sum_if(_IS_BILLED, _records.cached_tokens),
        "output_tokens": _sum_if(_IS_BILLED, _records.completion_tokens),
        **{
            name: _sum_if(_IS_BILLED, _records[name])
            for name in ("image_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens")
        },
        **{name: _sum(_records[name]) for name in ("input_amount", "cached_input_amount", "output_amount")},
        "unbilled_amount": _sum_if(~_IS_BILLED, _records.amount),
    }
    return [column.label(name) for name, column in sums.items()]


def _sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(column), 0)


def _sum_if(condition: sa.ColumnElement[bool], column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return _sum(sa.case((condition, column), else_=0))


def _run(connection: Connection, statement: sa.Select[Any], by: Collection[Dimension]) -> Iterator[UsageSum]:
    for row in connection.execute(statement, execution_options={"yield_per": _ROWS_AT_ONCE}):
        yield _usage_sum(row, len(by))


def _usage_sum(row: Row[Any], num_dimensions: int) -> UsageSum:
    values = dict(row._mapping)
    for name in list(values)[num_dimensions:]:
        values[name] = int(values[name])  # PostgreSQL adds integers up to decimals
    if "day" in values:
        values["day"] = date.fromisoformat(values["day"])
    return UsageSum(**values)
