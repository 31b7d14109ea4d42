"""From a password, or from what an identity provider says, to the account that it opens.

By identity: the account that is linked to it; else the one with its verified address, which is linked from then on;
else a new one, by an open invitation for the address, or by its domain where the operator allows that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.accounts import audit
from mezzo.accounts.audit import Actor
from mezzo.accounts.bootstrap import find_first_organization
from mezzo.accounts.errors import NotAdmitted, Unacceptable
from mezzo.accounts.invitations import accept_by_email
from mezzo.accounts.text import check_email
from mezzo.accounts.users import OidcIdentity, create_user
from mezzo.kit.secrets import hash_secret
from mezzo.store.tables import invitations, users

MAX_SUBJECT_LENGTH = 255


@dataclass(frozen=True, slots=True)
class PasswordAccount:
    """An account that a password may open."""

    user_id: str
    password_hash: str


@dataclass(frozen=True, slots=True)
class Identity:
    """What a provider says of somebody, its signature checked.

    issuer, subject     name them for ever, together
    is_email_verified   whether the provider knows that the address is theirs
    """

    issuer: str
    subject: str
    email: str | None
    is_email_verified: bool
    first_name: str
    last_name: str


def fold_email(email: str) -> str | None:
    """Return an address as accounts have it; None for what none of them has."""
    try:
        return check_email(email)
    except Unacceptable:
        return None


def find_password_accounts(connection: Connection, email: str) -> Sequence[PasswordAccount]:
    """Return the accounts with a password that an address has, one for each organisation, the oldest first."""
    return _password_accounts(connection, users.c.email == email)


def find_password_account(connection: Connection, user_id: str) -> PasswordAccount | None:
    """Return the account of a user, None for one without a password."""
    return next(iter(_password_accounts(connection, users.c.id == user_id)), None)


def confirm_password(connection: Connection, account: PasswordAccount, *, rehashed: str | None) -> bool:
    """Tell whether a password that was checked before this transaction is still the account's.

    Until the transaction ends it stays so: a change waits, and then ends the session that is begun now with the others.
    rehashed: the same password kept with today's parameters, to be stored in place of outdated ones.
    """
    found = connection.execute(
        sa.select(users.c.id)
        .where(
            users.c.id == account.user_id,
            users.c.password_hash == account.password_hash,
            users.c.deleted_at.is_(None),
        )
        .with_for_update()
    ).one_or_none()
    if found is not None and rehashed is not None:
        connection.execute(
            sa.update(users).where(users.c.id == account.user_id).values(password_hash=rehashed)
        )
    return found is not None


def admit(
    connection: Connection, identity: Identity, *, allowed_domains: Collection[str], now: datetime
) -> str:
    """Return the id of the user that an identity opens, having linked them or let them join where that is allowed.

    allowed_domains: in lower case; verified addresses of these join the first organisation as members.
    Raises: NotAdmitted; Conflict, or sqlalchemy's IntegrityError, if the same person comes twice at the same time.
    """
    linked = _find_linked(connection, identity)
    if linked is not None:
        return linked
    email = fold_email(identity.email or "")
    if email is None or not identity.is_email_verified:
        raise NotAdmitted("The identity provider names no address of yours that it has verified")
    return (
        _link_by_email(connection, identity, email)
        or _join_by_invitation(connection, identity, email, now)
        or _join_by_domain(connection, identity, email, allowed_domains, now)
        or _refuse()
    )


def is_invitation_open(connection: Connection, secret: str, now: datetime) -> bool:
    """Tell whether the invitation with this secret can be accepted now, before anything slow is done for it."""
    found = connection.execute(
        sa.select(invitations.c.id).where(
            invitations.c.secret_hash == hash_secret(secret),
            invitations.c.expires_at > now,
            invitations.c.accepted_at.is_(None),
            invitations.c.revoked_at.is_(None),
        )
    ).one_or_none()
    return found is not None


def _password_accounts(
    connection: Connection, condition: sa.ColumnElement[bool]
) -> Sequence[PasswordAccount]:
    rows = connection.execute(
        sa.select(users.c.id, users.c.password_hash)
        .where(condition, users.c.deleted_at.is_(None), users.c.password_hash.is_not(None))
        .order_by(users.c.created_at, users.c.id)
    )
    return [PasswordAccount(row.id, row.password_hash) for row in rows]


def _find_linked(connection: Connection, identity: Identity) -> str | None:
    found: str | None = connection.execute(
        sa.select(users.c.id).where(
            users.c.oidc_issuer == identity.issuer,
            users.c.oidc_subject == identity.subject,
            users.c.deleted_at.is_(None),
        )
    ).scalar_one_or_none()
    return found


def _link_by_email(connection: Connection, identity: Identity, email: str) -> str | None:
    """Link the oldest account that has the address. One that is linked already is somebody else's: refused."""
    row = connection.execute(
        sa.select(users.c.id, users.c.oidc_subject)
        .where(users.c.email == email, users.c.deleted_at.is_(None))
        .order_by(users.c.oidc_subject.is_not(None), users.c.created_at, users.c.id)
        .limit(1)
        .with_for_update()
    ).one_or_none()
    if row is None:
        return None
    if row.oidc_subject is not None:
        raise NotAdmitted("The account with your address belongs to another identity at the provider")
    _link(connection, identity, row.id)
    return str(row.id)


def _link(connection: Connection, identity: Identity, user_id: str) -> None:
    connection.execute(
        sa.update(users)
        .where(users.c.id == user_id)
        .values(oidc_issuer=identity.issuer, oidc_subject=identity.subject)
    )


def _join_by_invitation(connection: Connection, identity: Identity, email: str, now: datetime) -> str | None:
    user = accept_by_email(
        connection,
        email,
        first_name=identity.first_name,
        last_name=identity.last_name,
        identity=OidcIdentity(identity.issuer, identity.subject),
        now=now,
    )
    return None if user is None else user.id


def _join_by_domain(
    connection: Connection, identity: Identity, email: str, allowed_domains: Collection[str], now: datetime
) -> str | None:
    """Make a member of the first organisation. Whoever was deleted there comes back by an invitation only."""
    organization_id = find_first_organization(connection)
    if organization_id is None or email.rpartition("@")[2] not in allowed_domains:
        return None
    if _was_deleted(connection, organization_id, identity, email):
        return None
    user = create_user(
        connection,
        organization_id=organization_id,
        email=email,
        first_name=identity.first_name,
        last_name=identity.last_name,
        identity=OidcIdentity(identity.issuer, identity.subject),
        actor=None,
        now=now,
    )
    audit.record(
        connection,
        Actor("HUMAN", user.id, {"email": email}),
        "user.organization.join",
        "ORGANIZATION",
        {"uuid": organization_id},
        event={"domain": email.rpartition("@")[2]},
        organization_id=organization_id,
        now=now,
    )
    return user.id


def _was_deleted(connection: Connection, organization_id: str, identity: Identity, email: str) -> bool:
    is_theirs = sa.or_(
        users.c.email == email,
        sa.and_(users.c.oidc_issuer == identity.issuer, users.c.oidc_subject == identity.subject),
    )
    return (
        connection.execute(
            sa.select(users.c.id)
            .where(users.c.organization_id == organization_id, users.c.deleted_at.is_not(None), is_theirs)
            .limit(1)
        ).first()
        is not None
    )


def _refuse() -> NoReturn:
    raise NotAdmitted("There is no account for your address: ask an administrator for an invitation")
