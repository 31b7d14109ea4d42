"""Who there is: organisations, users, workspaces, members, invitations, API keys, sessions; and what was changed."""

from __future__ import annotations

import sqlalchemy as sa

from mezzo.store.columns import Moment, amount_column, id_column, metadata, unique_where

organizations = sa.Table(
    "organizations",
    metadata,
    id_column("id", primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    amount_column("monthly_limit"),
    sa.Column("created_at", Moment, nullable=False),
)
"""monthly_limit: most that a month may cost, None for no limit."""

users = sa.Table(
    "users",
    metadata,
    id_column("id", primary_key=True),
    id_column("organization_id", sa.ForeignKey("organizations.id"), nullable=False),
    sa.Column("email", sa.String(320), nullable=False),
    sa.Column("first_name", sa.String(255), nullable=False),
    sa.Column("last_name", sa.String(255), nullable=False),
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("subscription_types", sa.JSON, nullable=False),
    sa.Column("password_hash", sa.String(255)),
    sa.Column("oidc_issuer", sa.String(512)),
    sa.Column("oidc_subject", sa.String(255)),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("deleted_at", Moment),
    unique_where("deleted_at IS NULL", "uq_users_organization_id_email", "organization_id", "email"),
    unique_where("deleted_at IS NULL", "uq_users_oidc_issuer_oidc_subject", "oidc_issuer", "oidc_subject"),
)
"""email: in lower case. roles: names of organisation roles. password_hash: argon2id. Rows of users who left stay."""

workspaces = sa.Table(
    "workspaces",
    metadata,
    id_column("id", primary_key=True),
    id_column("organization_id", sa.ForeignKey("organizations.id"), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.String(255)),
    sa.Column("icon", sa.String(16)),
    sa.Column("is_default", sa.Boolean, nullable=False),
    amount_column("monthly_limit"),
    sa.Column("has_priority", sa.Boolean, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("archived_at", Moment),
    unique_where("is_default", "uq_workspaces_default", "organization_id"),
)
"""has_priority: requests with `service_tier: auto` are served, and billed, at the priority tier."""

workspace_members = sa.Table(
    "workspace_members",
    metadata,
    id_column("workspace_id", sa.ForeignKey("workspaces.id"), primary_key=True),
    id_column("user_id", sa.ForeignKey("users.id"), primary_key=True, index=True),
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("added_at", Moment, nullable=False),
)
"""roles: names of workspace roles."""

invitations = sa.Table(
    "invitations",
    metadata,
    id_column("id", primary_key=True),
    id_column("organization_id", sa.ForeignKey("organizations.id"), nullable=False),
    sa.Column("email", sa.String(320), nullable=False),
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("subscription_types", sa.JSON, nullable=False),
    sa.Column("workspace_ids", sa.JSON, nullable=False),
    sa.Column("language", sa.String(8), nullable=False),
    sa.Column("secret_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("expires_at", Moment, nullable=False),
    sa.Column("accepted_at", Moment),
    sa.Column("revoked_at", Moment),
)
"""secret_hash: SHA-256 of the secret in the invitation's link."""

api_keys = sa.Table(
    "api_keys",
    metadata,
    id_column("id", primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),
    id_column("organization_id", sa.ForeignKey("organizations.id"), nullable=False),
    id_column("workspace_id", sa.ForeignKey("workspaces.id")),
    id_column("user_id", sa.ForeignKey("users.id")),
    sa.Column("name", sa.String(255)),
    sa.Column("secret_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("hidden", sa.String(32), nullable=False),
    amount_column("monthly_limit"),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("expires_at", Moment),
    sa.Column("revoked_at", Moment),
    sa.Column("last_used_at", Moment),
    sa.CheckConstraint("kind IN ('api', 'admin')", name="kind"),
    sa.CheckConstraint("(kind = 'admin') = (workspace_id IS NULL)", name="workspace"),
)
"""kind: `api` keys belong to a workspace, `admin` keys to an organisation. secret_hash: SHA-256. hidden: as people may
see it. user_id: whose it is; None for the key that the operator configured."""

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("secret_hash", sa.String(64), primary_key=True),
    id_column("user_id", sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("expires_at", Moment, nullable=False),
)
"""secret_hash: SHA-256 of the session cookie."""

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("created_at", Moment, nullable=False),
    id_column("organization_id", nullable=False),
    id_column("workspace_id"),
    sa.Column("actor_type", sa.String(16), nullable=False),
    id_column("actor_user_id"),
    sa.Column("actor_metadata", sa.JSON, nullable=False),
    sa.Column("event_type", sa.String(64), nullable=False),
    sa.Column("event_metadata", sa.JSON, nullable=False),
    sa.Column("target_type", sa.String(32), nullable=False),
    sa.Column("target_metadata", sa.JSON, nullable=False),
    sa.Index("ix_audit_log_organization_id_created_at", "organization_id", "created_at"),
    sqlite_autoincrement=True,
)
"""Append-only: the database refuses changes. Metadata map strings to strings. actor_type: HUMAN, API_KEY or OTHER."""
