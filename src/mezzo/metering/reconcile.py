"""Whether the books agree with themselves and with what the engines counted; and if not, where.

    every record's amounts      = its tokens at its price
    sums kept beside records    = sums of records: money by organisation, workspace and key; tokens by quota
    tokens in records           = tokens that each engine process counted itself

An engine may have counted more than the records say for one reason that is no fault: its server was killed, and the
requests that it left are in the books as interrupted, without tokens. That is told as a note.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from mezzo.metering.prices import Price, rate
from mezzo.metering.records import is_billed
from mezzo.store.tables import engine_runs, month_tokens, open_requests, prices, servers, spend, usage_records

_SCOPES = {
    "organization": usage_records.c.organization_id,
    "workspace": usage_records.c.workspace_id,
    "api_key": usage_records.c.api_key_id,
}
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    is_fault   False for a note: an explained difference
    check      price, spend, quota or engine
    subject    what it is about: a request, a sum, an engine process
    """

    is_fault: bool
    check: str
    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was compared, and what was found. num_open: requests in flight, which are in no sum yet."""

    num_records: int
    num_engine_runs: int
    num_open: int
    amount: int
    findings: tuple[Finding, ...]

    @property
    def agrees(self) -> bool:
        """Whether there is no fault."""
        return not any(finding.is_fault for finding in self.findings)


def reconcile(connection: Connection) -> Reconciliation:
    """Compare everything. `connection` should see one state of the database throughout.

    Cost: one pass over all records. Requests in flight make an engine's counts run ahead of the records.
    """
    totals = connection.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(usage_records.c.amount), 0)).select_from(
            usage_records
        )
    ).one()
    count = sa.select(sa.func.count())
    findings = [*_check_prices(connection), *_check_spend(connection), *_check_quotas(connection)]
    findings += _check_engines(connection)
    return Reconciliation(
        num_records=totals[0],
        num_engine_runs=connection.execute(count.select_from(engine_runs)).scalar_one(),
        num_open=connection.execute(count.select_from(open_requests)).scalar_one(),
        amount=int(totals[1]),
        findings=tuple(findings),
    )


def _check_prices(connection: Connection) -> Iterator[Finding]:
    by_id = {row.id: _price(row) for row in connection.execute(sa.select(prices))}
    query = sa.select(usage_records).execution_options(yield_per=_ROWS_AT_ONCE)
    for row in connection.execute(query):
        price = by_id.get(row.price_id)
        if price is None:
            yield Finding(True, "price", row.id, f"its price {row.price_id} is not in the books")
            continue
        amounts = rate(
            price,
            prompt_tokens=row.prompt_tokens,
            cached_tokens=row.cached_tokens,
            completion_tokens=row.completion_tokens,
        )
        wanted = (amounts.input, amounts.cached_input, amounts.output)
        if not is_billed(row.status, row.completion_tokens):
            wanted = (0, 0, 0)
        had = (row.input_amount, row.cached_input_amount, row.output_amount)
        if had != wanted:
            yield Finding(True, "price", row.id, f"its amounts are {had}, and at {row.price_id} {wanted}")


def _check_spend(connection: Connection) -> Iterator[Finding]:
    kept = {(row.scope, row.scope_id, row.month): row.amount for row in connection.execute(sa.select(spend))}
    summed: dict[tuple[str, str, str], int] = {}
    for scope, column in _SCOPES.items():
        query = sa.select(
            column.label("scope_id"),
            usage_records.c.month,
            sa.func.sum(usage_records.c.amount).label("amount"),
        ).group_by(column, usage_records.c.month)
        for row in connection.execute(query):
            summed[scope, row.scope_id, row.month] = int(row.amount)
    yield from _differences("spend", kept, summed, "nano-units")


def _check_quotas(connection: Connection) -> Iterator[Finding]:
    records = usage_records.c
    kept = {
        (row.workspace_id, row.model_id, row.month): row.tokens
        for row in connection.execute(sa.select(month_tokens))
    }
    query = (
        sa.select(
            records.workspace_id,
            records.model_id,
            records.month,
            sa.func.sum(records.prompt_tokens - records.cached_tokens + records.completion_tokens).label(
                "tokens"
            ),
        )
        .where(records.amount > 0)
        .group_by(records.workspace_id, records.model_id, records.month)
    )
    summed = {
        (row.workspace_id, row.model_id, row.month): int(row.tokens) for row in connection.execute(query)
    }
    yield from _differences("quota", kept, summed, "tokens")


def _differences(
    check: str, kept: dict[tuple[str, str, str], int], summed: dict[tuple[str, str, str], int], unit: str
) -> Iterator[Finding]:
    for key in sorted(kept.keys() | summed.keys()):
        if kept.get(key, 0) != summed.get(key, 0):
            message = f"{kept.get(key, 0)} {unit} are kept, and records sum up to {summed.get(key, 0)}"
            yield Finding(True, check, " ".join(key), message)


def _check_engines(connection: Connection) -> Iterator[Finding]:
    recorded = {row.engine_run_id: row for row in connection.execute(_tokens_by_engine())}
    open_of = set(connection.scalars(sa.select(open_requests.c.engine_run_id).distinct()))
    runs = sa.select(engine_runs, servers.c.stopped_at).join(servers, servers.c.id == engine_runs.c.server_id)
    for run in connection.execute(runs):
        row = recorded.pop(run.id, None)
        kinds = {
            "prompt": run.prompt_tokens - int(row.prompt_tokens if row else 0),
            "completion": run.completion_tokens - int(row.completion_tokens if row else 0),
        }
        for kind, more in kinds.items():
            if more:
                yield _engine_difference(run, row, kind, more, is_busy=run.id in open_of)
    for run_id, row in recorded.items():
        if run_id is not None and row.prompt_tokens + row.completion_tokens:
            yield Finding(True, "engine", run_id, "records name this engine process, which counted nothing")


def _tokens_by_engine() -> sa.Select[Any]:
    records = usage_records.c
    return sa.select(
        records.engine_run_id,
        sa.func.sum(records.prompt_tokens).label("prompt_tokens"),
        sa.func.sum(records.completion_tokens).label("completion_tokens"),
        sa.func.sum(sa.case((records.status == "interrupted", 1), else_=0)).label("num_interrupted"),
    ).group_by(records.engine_run_id)


def _engine_difference(
    run: Row[Any], row: Row[Any] | None, kind: str, more: int, *, is_busy: bool
) -> Finding:
    subject = f"{run.weights} {run.id}"
    if more > 0 and is_busy:
        return Finding(False, "engine", subject, f"{more} {kind} tokens belong to requests in flight")
    if more > 0 and row is not None and row.num_interrupted and run.stopped_at is None:
        message = f"{more} {kind} tokens were for {row.num_interrupted} requests that a dead server left; not billed"
        return Finding(False, "engine", subject, message)
    where = "the engine counted" if more > 0 else "the records have"
    return Finding(True, "engine", subject, f"{where} {abs(more)} {kind} tokens more")


def _price(row: Row[Any]) -> Price:
    return Price(
        id=row.id,
        model_id=row.model_id,
        currency=row.currency,
        service_tier=row.service_tier,
        valid_from=row.valid_from.astimezone(UTC),
        input=Decimal(row.input_per_million),
        cached_input=Decimal(row.cached_input_per_million),
        output=Decimal(row.output_per_million),
    )
