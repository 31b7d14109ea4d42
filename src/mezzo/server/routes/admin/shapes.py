"""From what accounts know to what the wire shows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from mezzo.accounts.audit import AuditEntry
from mezzo.accounts.invitations import Invitation
from mezzo.accounts.keys import ApiKey
from mezzo.accounts.roles import ORGANIZATION_ROLES, WORKSPACE_ROLES, RoleSet
from mezzo.accounts.users import User
from mezzo.accounts.workspaces import Workspace
from mezzo.kit.money import as_number
from mezzo.protocol.admin.answers import RoleInfo, Roles, Subscription, WorkspaceOfMember
from mezzo.protocol.admin.audit import AuditEntryAnswer
from mezzo.protocol.admin.keys import Action, Actions, ExtendedKey, KeyAnswer
from mezzo.protocol.admin.users import InviteAnswer, InviteOfList, MemberAnswer, UserAnswer
from mezzo.protocol.admin.workspaces import SpendLimitOfWorkspace, WorkspaceAnswer


def all_roles() -> Roles:
    """Return the answer of `GET /roles`."""
    return Roles(
        workspace_roles=_role_infos(WORKSPACE_ROLES), organization_roles=_role_infos(ORGANIZATION_ROLES)
    )


def member(user: User) -> MemberAnswer:
    """Return a member as lists show it."""
    return MemberAnswer(**_member_fields(user))


def member_with_names(user: User) -> UserAnswer:
    """Return a member as it is shown alone."""
    return UserAnswer(**_member_fields(user), first_name=user.first_name, last_name=user.last_name)


def invite_of_list(invitation: Invitation, now: datetime) -> InviteOfList:
    """Return an invitation as it is shown beside members."""
    raw_roles = ORGANIZATION_ROLES.uuids(invitation.roles)
    return InviteOfList(
        uuid=invitation.id,
        raw_roles=raw_roles,
        raw_role=raw_roles[0],
        email=invitation.email,
        expired=invitation.expires_at <= now,
        created_at=invitation.created_at,
        workspace_uuids=list(invitation.workspace_ids),
    )


def invite(invitation: Invitation) -> InviteAnswer:
    """Return an invitation as it is shown among invitations."""
    raw_roles = ORGANIZATION_ROLES.uuids(invitation.roles)
    return InviteAnswer(invite_uuid=invitation.id, email=invitation.email, roles=raw_roles, role=raw_roles[0])


def workspace_fields(workspace: Workspace, currency: str) -> dict[str, Any]:
    """Return the fields that every answer with a workspace has."""
    limit = workspace.monthly_limit
    return {
        "uuid": workspace.id,
        "name": workspace.name,
        "description": workspace.description,
        "icon": workspace.icon,
        "members_count": workspace.num_members,
        "spend_limit": SpendLimitOfWorkspace(
            value=None if limit is None else as_number(limit),
            currency=currency,
            no_monthly_limit=limit is None,
        ),
        "is_default": workspace.is_default,
    }


def workspace_answer(workspace: Workspace, currency: str) -> WorkspaceAnswer:
    """Return a workspace."""
    return WorkspaceAnswer(**workspace_fields(workspace, currency))


def created_key(key: ApiKey, secret: str) -> KeyAnswer:
    """Return a key that was just made, with its secret."""
    return KeyAnswer(**_key_fields(key), key=secret)


def extended_key(key: ApiKey) -> ExtendedKey:
    """Return a key as lists show it."""
    return ExtendedKey(
        **_key_fields(key),
        key=None,
        workspace_id=key.workspace_id,
        workspace_name=key.workspace_name,
        created_by=key.user_id,
        product="API",
        last_used=None if key.last_used_at is None else key.last_used_at.date(),
        can_delete=True,
    )


def audit_entry(entry: AuditEntry) -> AuditEntryAnswer:
    """Return an entry of the audit log."""
    return AuditEntryAnswer(
        created_at=entry.created_at,
        actor_type=entry.actor_type,
        actor_metadata=dict(entry.actor_metadata),
        event_type=entry.event_type,
        event_metadata=dict(entry.event_metadata),
        target_type=entry.target_type,
        target_metadata=dict(entry.target_metadata),
        log_id=entry.id,
        organization_uuid=entry.organization_id,
        workspace_uuid=entry.workspace_id,
    )


def _role_infos(roles: RoleSet) -> list[RoleInfo]:
    return [
        RoleInfo(name=role.name, uuid=role.uuid, description=role.description, is_custom_role=False)
        for role in roles
    ]


def _member_fields(user: User) -> dict[str, Any]:
    raw_roles = ORGANIZATION_ROLES.uuids(user.roles)
    return {
        "uuid": user.id,
        "oid_id": user.oidc_subject,
        "name": f"{user.first_name} {user.last_name}",
        "email": user.email,
        "is_sso_outsider": None,
        "workspaces": [
            WorkspaceOfMember(
                uuid=membership.workspace_id,
                name=membership.workspace_name,
                is_default=membership.is_default,
                raw_roles=WORKSPACE_ROLES.uuids(membership.roles),
                raw_role=WORKSPACE_ROLES.uuids(membership.roles)[0],
            )
            for membership in user.memberships
        ],
        "subscriptions": [
            Subscription(type=kind, status="ACTIVE", member_has_access=True)
            for kind in user.subscription_types
        ],
        "raw_roles": raw_roles,
        "raw_role": raw_roles[0],
        "subscription_types": list(user.subscription_types),
        "created_at": user.created_at,
    }


def _key_fields(key: ApiKey) -> dict[str, Any]:
    # The last moment at which a key is good is in its last day.
    last = None if key.expires_at is None else key.expires_at - timedelta(microseconds=1)
    return {
        "key_id": key.id,
        "name": key.name,
        "hidden_key": key.hidden,
        "created_at": key.created_at,
        "expiration_date": None if last is None else last.date(),
        "actions": Actions(rotate=None, delete=Action()),
    }
