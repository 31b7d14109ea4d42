"""Limits that administrators set: what a month may cost, and how much a workspace may ask of a model.

Amounts are in nano-units. Those of keys are in keys.py; who holds requests to the limits is metering.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.accounts import audit
from mezzo.accounts.access import RateLimits, Scope, load_rate_limits
from mezzo.accounts.audit import Actor
from mezzo.accounts.errors import Conflict, Unacceptable
from mezzo.accounts.scope import require_workspace
from mezzo.accounts.text import check_text
from mezzo.kit.money import format_amount
from mezzo.store.tables import installation, organizations, rate_limits, spend, workspaces

_MAX_MODEL_LENGTH = 128
_LARGEST = {
    "requests_per_minute": 2**31 - 1,
    "tokens_per_minute": 2**63 - 1,
    "tokens_per_month": 2**63 - 1,
}


def find_currency(connection: Connection) -> str:
    """Return the currency of all amounts of the installation, as three letters."""
    currency: str = connection.execute(sa.select(installation.c.currency)).scalar_one()
    return currency


def find_spend(connection: Connection, scope: Scope, scope_id: str, now: datetime) -> int:
    """Return what the month of `now`, in UTC, has cost so far, in nano-units."""
    month = now.astimezone(UTC).strftime("%Y-%m")
    amount = connection.execute(
        sa.select(spend.c.amount).where(
            spend.c.scope == scope, spend.c.scope_id == scope_id, spend.c.month == month
        )
    ).scalar_one_or_none()
    return amount or 0


def find_organization_limit(connection: Connection, organization_id: str) -> int | None:
    """Return the most that a month of an organisation may cost, None for no limit."""
    limit: int | None = connection.execute(
        sa.select(organizations.c.monthly_limit).where(organizations.c.id == organization_id)
    ).scalar_one()
    return limit


def set_organization_limit(
    connection: Connection,
    *,
    organization_id: str,
    monthly_limit: int | None,
    actor: Actor,
    now: datetime,
) -> None:
    """Set the most that a month of an organisation may cost, None for no limit.

    A workspace whose own limit is above it keeps that; the lower one stops it. Raises: Unacceptable.
    """
    _check_not_negative(monthly_limit)
    old = connection.execute(
        sa.select(organizations.c.monthly_limit)
        .where(organizations.c.id == organization_id)
        .with_for_update()
    ).scalar_one()
    if old == monthly_limit:
        return
    connection.execute(
        sa.update(organizations)
        .where(organizations.c.id == organization_id)
        .values(monthly_limit=monthly_limit)
    )
    audit.record(
        connection,
        actor,
        "billing.monthly_limit.updated",
        "MONTHLY_LIMIT",
        {"uuid": organization_id},
        event=_amounts(old, monthly_limit),
        organization_id=organization_id,
        now=now,
    )


def set_workspace_limit(
    connection: Connection,
    *,
    organization_id: str,
    workspace_id: str,
    monthly_limit: int | None,
    actor: Actor,
    now: datetime,
) -> None:
    """Set the most that a month of a workspace may cost, None for no limit of its own.

    Raises: NotThere; Conflict if it is above the organisation's; Unacceptable.
    """
    _check_not_negative(monthly_limit)
    workspace = require_workspace(connection, organization_id, workspace_id, lock="exclusive")
    most = find_organization_limit(connection, organization_id)
    if monthly_limit is not None and most is not None and monthly_limit > most:
        raise Conflict(f"the limit of the organization is {format_amount(most)}")
    if workspace.monthly_limit == monthly_limit:
        return
    connection.execute(
        sa.update(workspaces).where(workspaces.c.id == workspace_id).values(monthly_limit=monthly_limit)
    )
    audit.record(
        connection,
        actor,
        "billing.workspace_monthly_limit.updated",
        "WORKSPACE_MONTHLY_LIMIT",
        {"uuid": workspace_id, "name": workspace.name},
        event=_amounts(workspace.monthly_limit, monthly_limit),
        organization_id=organization_id,
        workspace_id=workspace_id,
        now=now,
    )


def list_rate_limits(
    connection: Connection, organization_id: str, workspace_id: str
) -> Mapping[str, RateLimits]:
    """Return the limits set for a workspace, by model id or EVERY_MODEL. Raises: NotThere."""
    require_workspace(connection, organization_id, workspace_id)
    return load_rate_limits(connection, workspace_id)


def set_rate_limits(
    connection: Connection,
    *,
    organization_id: str,
    workspace_id: str,
    model_id: str,
    limits: RateLimits | None,
    actor: Actor,
    now: datetime,
) -> None:
    """Set what a workspace may ask of a model, in place of what was set for it; None takes the rule away.

    model_id: EVERY_MODEL for all models without a rule of their own. Raises: NotThere, Unacceptable.
    """
    check_text(model_id, param="model", max_length=_MAX_MODEL_LENGTH)
    values = _columns(limits)
    workspace = require_workspace(connection, organization_id, workspace_id, lock="exclusive")
    old = load_rate_limits(connection, workspace_id).get(model_id)
    if old == limits:
        return
    condition = sa.and_(rate_limits.c.workspace_id == workspace_id, rate_limits.c.model_id == model_id)
    if limits is None:
        change = "delete"
        connection.execute(sa.delete(rate_limits).where(condition))
    elif old is None:
        change = "create"
        row = {"workspace_id": workspace_id, "model_id": model_id, **values}
        connection.execute(sa.insert(rate_limits).values(row))
    else:
        change = "update"
        connection.execute(sa.update(rate_limits).where(condition).values(values))
    audit.record(
        connection,
        actor,
        f"rate_limit.rule.{change}",
        "RATE_LIMIT_RULE",
        {"workspace_uuid": workspace_id, "workspace_name": workspace.name, "model": model_id},
        event=_changes(old, limits),
        organization_id=organization_id,
        workspace_id=workspace_id,
        now=now,
    )


def _columns(limits: RateLimits | None) -> dict[str, Any]:
    if limits is None:
        return {}
    values = {name: getattr(limits, name) for name in _LARGEST}
    for name, value in values.items():
        if value is not None and not 0 <= value <= _LARGEST[name]:
            raise Unacceptable(f"a limit is 0 to {_LARGEST[name]}", param=name)
    return values


def _changes(old: RateLimits | None, new: RateLimits | None) -> dict[str, str]:
    return {
        f"{age}_{name}": str(value)
        for age, limits in (("old", old), ("new", new))
        for name, value in _columns(limits).items()
        if value is not None
    }


def _amounts(old: int | None, new: int | None) -> dict[str, str]:
    return {
        "old": "none" if old is None else format_amount(old),
        "new": "none" if new is None else format_amount(new),
    }


def _check_not_negative(limit: int | None) -> None:
    if limit is not None and limit < 0:
        raise Unacceptable("a limit is not negative", param="monthly_limit")
