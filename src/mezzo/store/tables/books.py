"""What was used and what it cost: prices, requests in flight, usage records, and the sums kept beside them."""

from __future__ import annotations

import sqlalchemy as sa

from mezzo.store.columns import Moment, amount_column, id_column, metadata

prices = sa.Table(
    "prices",
    metadata,
    sa.Column("id", sa.String(160), primary_key=True),
    sa.Column("model_id", sa.String(128), nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("service_tier", sa.String(16), nullable=False),
    sa.Column("valid_from", Moment, nullable=False),
    sa.Column("input_per_million", sa.String(32), nullable=False),
    sa.Column("cached_input_per_million", sa.String(32), nullable=False),
    sa.Column("output_per_million", sa.String(32), nullable=False),
)
"""Every price that was ever applied, as the catalog had it. Append-only. Amounts are decimals as text."""

servers = sa.Table(
    "servers",
    metadata,
    id_column("id", primary_key=True),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("stopped_at", Moment),
)
"""Server processes. beat: grows while the process has open requests, so that no clock has to agree with another."""

engine_runs = sa.Table(
    "engine_runs",
    metadata,
    id_column("id", primary_key=True),
    id_column("server_id", sa.ForeignKey("servers.id"), nullable=False),
    sa.Column("weights", sa.String(255), nullable=False),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("num_requests", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
)
"""Engine processes, and what each says itself of the requests that ended in it."""

open_requests = sa.Table(
    "open_requests",
    metadata,
    id_column("id", primary_key=True),
    id_column("server_id", nullable=False, index=True),
    id_column("organization_id", nullable=False),
    id_column("workspace_id", nullable=False),
    id_column("api_key_id", nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("month", sa.String(7), nullable=False),
    sa.Column("route", sa.String(64), nullable=False),
    sa.Column("model", sa.String(256), nullable=False),
    sa.Column("model_id", sa.String(128), nullable=False),
    sa.Column("weights", sa.String(255), nullable=False),
    id_column("engine_run_id"),
    sa.Column("service_tier", sa.String(16), nullable=False),
    sa.Column("is_stream", sa.Boolean, nullable=False),
    sa.Column("price_id", sa.String(160), nullable=False),
    amount_column("reserved", nullable=False),
)
"""Requests that were admitted and are not in the books yet. reserved: the most that each can cost."""

usage_records = sa.Table(
    "usage_records",
    metadata,
    id_column("id", primary_key=True),
    id_column("organization_id", nullable=False),
    id_column("workspace_id", nullable=False),
    id_column("api_key_id", nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("month", sa.String(7), nullable=False),
    sa.Column("route", sa.String(64), nullable=False),
    sa.Column("model", sa.String(256), nullable=False),
    sa.Column("model_id", sa.String(128), nullable=False),
    sa.Column("weights", sa.String(255), nullable=False),
    id_column("engine_run_id", index=True),
    sa.Column("service_tier", sa.String(16), nullable=False),
    sa.Column("is_stream", sa.Boolean, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("cached_tokens", sa.Integer, nullable=False),
    sa.Column("image_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("accepted_prediction_tokens", sa.Integer, nullable=False),
    sa.Column("rejected_prediction_tokens", sa.Integer, nullable=False),
    sa.Column("is_estimated", sa.Boolean, nullable=False),
    sa.Column("latency_us", sa.BigInteger, nullable=False),
    sa.Column("ttft_us", sa.BigInteger),
    sa.Column("price_id", sa.String(160), nullable=False),
    amount_column("input_amount", nullable=False),
    amount_column("cached_input_amount", nullable=False),
    amount_column("output_amount", nullable=False),
    amount_column("amount", nullable=False),
    sa.CheckConstraint(
        "amount = input_amount + cached_input_amount + output_amount", name="amount_is_the_sum_of_its_parts"
    ),
    sa.CheckConstraint(
        "cached_tokens <= prompt_tokens AND image_tokens <= prompt_tokens", name="parts_of_prompt"
    ),
    sa.Index("ix_usage_records_organization_id_created_at", "organization_id", "created_at"),
    sa.Index("ix_usage_records_workspace_id_created_at", "workspace_id", "created_at"),
)
"""One row for each request that was admitted, written when it ended. Append-only.

id: the request's, as in its answer. created_at: when it was admitted; month: that moment's, in UTC, as 2026-11. model:
the name asked for; model_id: the model that answered. status: finished; aborted (the client left); failed (our fault,
not billed); interrupted (the server died, not billed). image_tokens and cached_tokens are parts of prompt_tokens.
is_estimated: an upstream did not report its counts. input_amount is for prompt tokens that were not cached.
"""

spend = sa.Table(
    "spend",
    metadata,
    sa.Column("scope", sa.String(16), primary_key=True),
    id_column("scope_id", primary_key=True),
    sa.Column("month", sa.String(7), primary_key=True),
    amount_column("amount", nullable=False),
)
"""What usage records of a month sum up to. scope: organization, workspace or api_key."""

month_tokens = sa.Table(
    "month_tokens",
    metadata,
    id_column("workspace_id", primary_key=True),
    sa.Column("model_id", sa.String(128), primary_key=True),
    sa.Column("month", sa.String(7), primary_key=True),
    sa.Column("tokens", sa.BigInteger, nullable=False),
)
"""Tokens that count against a monthly quota: prompt tokens that were not cached, and completion tokens."""

rate_limits = sa.Table(
    "rate_limits",
    metadata,
    id_column("workspace_id", sa.ForeignKey("workspaces.id"), primary_key=True),
    sa.Column("model_id", sa.String(128), primary_key=True),
    sa.Column("requests_per_minute", sa.Integer),
    sa.Column("tokens_per_minute", sa.BigInteger),
    sa.Column("tokens_per_month", sa.BigInteger),
)
"""Limits that an administrator set. model_id: `*` for every model without a row of its own. None: no limit."""
