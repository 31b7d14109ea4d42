"""All tables. Rows of one domain stand in one file."""

from mezzo.store.columns import metadata
from mezzo.store.tables.accounts import (
    api_keys,
    audit_log,
    invitations,
    organizations,
    sessions,
    users,
    workspace_members,
    workspaces,
)
from mezzo.store.tables.books import (
    engine_runs,
    month_tokens,
    open_requests,
    prices,
    rate_limits,
    servers,
    spend,
    usage_records,
)
from mezzo.store.tables.installation import idempotency_keys, installation

__all__ = [
    "api_keys",
    "audit_log",
    "engine_runs",
    "idempotency_keys",
    "installation",
    "invitations",
    "metadata",
    "month_tokens",
    "open_requests",
    "organizations",
    "prices",
    "rate_limits",
    "servers",
    "sessions",
    "spend",
    "usage_records",
    "users",
    "workspace_members",
    "workspaces",
]
