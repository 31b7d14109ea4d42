"""The installation itself, and answers kept for retries."""

from __future__ import annotations

import sqlalchemy as sa

from mezzo.store.columns import Moment, id_column, metadata

installation = sa.Table(
    "installation",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("secret_fingerprint", sa.String(64), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.CheckConstraint("id = 1", name="one_row"),
)
"""secret_fingerprint: tells whether a server has the installation's secret, and nothing of it."""

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    id_column("scope_id", primary_key=True),
    sa.Column("key_hash", sa.String(64), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    id_column("request_id", nullable=False, unique=True),
    id_column("server_id", nullable=False, index=True),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("answer", sa.LargeBinary),
    sa.Index("ix_idempotency_keys_created_at", "created_at"),
)
"""scope_id: the workspace, or the organisation for admin calls. fingerprint: of method, path and body. status and
answer are None while the call is in flight; answer is encrypted with the installation's secret."""
