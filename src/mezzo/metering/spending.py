"""Spending limits and monthly quotas, checked in the transaction that admits a request.

A limit holds under any concurrency: what was spent, what requests in flight can still cost and what this one can cost
are added up under the lock of the limit's row, so no two requests can both take the last of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.accounts.access import Scope
from mezzo.metering.records import Opening, Settlement
from mezzo.store.database import insert_into
from mezzo.store.prepared import Prepared
from mezzo.store.tables import month_tokens, open_requests, spend

SpendKey = tuple[Scope, str, str]
"""Scope, id, month."""

_SCOPE_COLUMNS: dict[Scope, sa.Column[str]] = {
    "organization": open_requests.c.organization_id,
    "workspace": open_requests.c.workspace_id,
    "api_key": open_requests.c.api_key_id,
}


class SpendLimitReached(Exception):
    """The request could cost more than is left. scope: whose limit it is."""

    def __init__(self, scope: Scope, month: str) -> None:
        super().__init__(f"the monthly spending limit of this {scope.replace('_', ' ')} is reached")
        self.scope = scope
        self.month = month


class QuotaReached(Exception):
    """The workspace has used the tokens that a month allows it of a model."""

    def __init__(self, model_id: str, month: str) -> None:
        super().__init__(f"the monthly tokens of {model_id} are used up")
        self.model_id = model_id
        self.month = month


def spend_keys(opening: Opening) -> list[SpendKey]:
    """Return the sums that a request counts for."""
    return [
        ("organization", opening.access.organization_id, opening.month),
        ("workspace", opening.workspace_id, opening.month),
        ("api_key", opening.access.key_id, opening.month),
    ]


def lock(connection: Connection, keys: Iterable[SpendKey]) -> None:
    """Keep everybody else from changing these sums until the transaction of a PostgreSQL ends.

    In one order for all, so that no two transactions wait for each other.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return
    rows = [
        {"scope": scope, "scope_id": scope_id, "month": month, "amount": 0}
        for scope, scope_id, month in wanted
    ]
    connection.execute(insert_into(spend, connection.dialect.name).on_conflict_do_nothing(), rows)
    connection.execute(
        sa.select(spend.c.scope)
        .where(sa.tuple_(spend.c.scope, spend.c.scope_id, spend.c.month).in_(wanted))
        .order_by(spend.c.scope, spend.c.scope_id, spend.c.month)
        .with_for_update()
    ).all()


class Allowances:
    """What is left in one transaction, whose locks are held. Requests of one batch are counted one after the other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._taken: dict[SpendKey, int] = {}
        self._tokens: dict[tuple[str, str, str], int] = {}

    def take(self, opening: Opening) -> None:
        """Reserve the most that a request can cost. Raises: SpendLimitReached, QuotaReached; nothing is taken then."""
        self._check_quota(opening)
        keys: list[SpendKey] = []
        for limit in opening.access.spend_limits:
            key: SpendKey = (limit.scope, limit.scope_id, opening.month)
            if self._taken_of(key) + opening.reserved > limit.limit:
                raise SpendLimitReached(limit.scope, opening.month)
            keys.append(key)
        for key in keys:
            self._taken[key] += opening.reserved

    def _taken_of(self, key: SpendKey) -> int:
        if key not in self._taken:
            scope, scope_id, month = key
            spent = self._connection.execute(
                sa.select(spend.c.amount).where(
                    spend.c.scope == scope, spend.c.scope_id == scope_id, spend.c.month == month
                )
            ).scalar_one_or_none()
            reserved = self._connection.execute(
                sa.select(sa.func.coalesce(sa.func.sum(open_requests.c.reserved), 0)).where(
                    _SCOPE_COLUMNS[scope] == scope_id, open_requests.c.month == month
                )
            ).scalar_one()
            self._taken[key] = (spent or 0) + int(reserved)
        return self._taken[key]

    def _check_quota(self, opening: Opening) -> None:
        if opening.tokens_per_month is None:
            return
        key = (opening.workspace_id, opening.model_id, opening.month)
        if key not in self._tokens:
            self._tokens[key] = (
                self._connection.execute(
                    sa.select(month_tokens.c.tokens).where(
                        month_tokens.c.workspace_id == key[0],
                        month_tokens.c.model_id == key[1],
                        month_tokens.c.month == key[2],
                    )
                ).scalar_one_or_none()
                or 0
            )
        if self._tokens[key] >= opening.tokens_per_month:
            raise QuotaReached(opening.model_id, opening.month)


def add_up(connection: Connection, settlements: Iterable[Settlement]) -> None:
    """Add what requests cost and used to the sums kept beside the records."""
    amounts: dict[SpendKey, int] = {}
    tokens: dict[tuple[str, str, str], int] = {}
    for settlement in settlements:
        opening = settlement.opening
        if amount := settlement.amounts.total:
            for key in spend_keys(opening):
                amounts[key] = amounts.get(key, 0) + amount
            quota = (opening.workspace_id, opening.model_id, opening.month)
            tokens[quota] = tokens.get(quota, 0) + settlement.quota_tokens
    if not amounts:
        return
    _ADD_SPEND.run(
        connection,
        [
            {"scope": scope, "scope_id": scope_id, "month": month, "amount": amount}
            for (scope, scope_id, month), amount in sorted(amounts.items())
        ],
    )
    _ADD_TOKENS.run(
        connection,
        [
            {"workspace_id": workspace_id, "model_id": model_id, "month": month, "tokens": count}
            for (workspace_id, model_id, month), count in sorted(tokens.items())
        ],
    )


def _add_spend(dialect: str) -> sa.Insert:
    insert = insert_into(spend, dialect)
    return insert.on_conflict_do_update(
        index_elements=["scope", "scope_id", "month"],
        set_={"amount": spend.c.amount + insert.excluded.amount},
    )


def _add_tokens(dialect: str) -> sa.Insert:
    insert = insert_into(month_tokens, dialect)
    return insert.on_conflict_do_update(
        index_elements=["workspace_id", "model_id", "month"],
        set_={"tokens": month_tokens.c.tokens + insert.excluded.tokens},
    )


_ADD_SPEND = Prepared(_add_spend, spend.c.keys())
_ADD_TOKENS = Prepared(_add_tokens, month_tokens.c.keys())
