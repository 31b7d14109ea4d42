"""Signing in and out: the one place where passwords, identities, limits on guesses and sessions meet.

Everybody who fails is told the same after the same time, whether or not they have an account.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from mezzo.accounts.attempts import Attempts
from mezzo.accounts.audit import Actor
from mezzo.accounts.errors import Conflict, NotAdmitted, Unacceptable
from mezzo.accounts.invitations import accept_invitation
from mezzo.accounts.passwords import PasswordWork, needs_rehash
from mezzo.accounts.sessions import SessionUser, create_session, end_session, find_session
from mezzo.accounts.sign_in import (
    Identity,
    PasswordAccount,
    admit,
    confirm_password,
    find_password_account,
    find_password_accounts,
    fold_email,
    is_invitation_open,
)
from mezzo.accounts.users import set_password
from mezzo.protocol.errors import Forbidden, NotFound, NotSignedIn
from mezzo.store.database import Database

_T = TypeVar("_T")
_log = structlog.get_logger("mezzo.server")


@dataclass(frozen=True, slots=True)
class Session:
    """A session that goes on: its secret, and whose it is."""

    secret: str
    user: SessionUser


class SignIn:
    """Begins, finds and ends sessions. For one event loop; the database is used in threads.

    `ended`, where a method takes it, is the secret of the session that a browser already had: the new one replaces it.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        *,
        lifetime: timedelta,
        allowed_domains: Collection[str],
    ) -> None:
        self._database = database
        self._clock = clock
        self._lifetime = lifetime
        self._allowed_domains = allowed_domains
        self._passwords = PasswordWork()
        self._attempts = Attempts()

    async def by_password(self, email: str, password: str, *, address: str, ended: str | None) -> Session:
        """Begin a session. address: of the network, for the limit on guesses.

        Raises: NotSignedIn for whatever was wrong; TooManyAttempts; TooBusy.
        """
        folded = fold_email(email) or ""
        self._attempts.begin(folded, address, time.monotonic())
        accounts = await asyncio.to_thread(self._password_accounts, folded)
        account = await self._first_match(accounts, password)
        opened = None if account is None else await self._open(account, password, ended)
        if opened is None:
            _log.warning("sign-in failed", method="password", address=address, is_known=bool(accounts))
            raise NotSignedIn("The email or the password is wrong")
        self._attempts.succeed(folded, address)
        _log.info("signed in", method="password", user_id=opened.user.id, address=address)
        return opened

    async def by_invitation(
        self, secret: str, first_name: str, last_name: str, password: str, *, ended: str | None
    ) -> Session:
        """Let somebody join whom an administrator invited, and begin their session.

        Raises: NotFound for an invitation that is not open; Conflict; Unacceptable; TooBusy.
        """
        if not await asyncio.to_thread(self._is_invitation_open, secret):
            raise NotFound(
                "There is no such invitation, or it was accepted or has expired: ask for another one"
            )
        password_hash = await self._passwords.hash(password)

        def join(connection: Connection) -> Session:
            user = accept_invitation(connection, secret, first_name, last_name, password_hash, self._clock())
            return self._begin(connection, user.id, ended)

        opened = await asyncio.to_thread(self._write, join)
        _log.info("signed in", method="invitation", user_id=opened.user.id)
        return opened

    async def by_identity(self, identity: Identity, *, ended: str | None) -> Session:
        """Begin a session of whom a provider vouches for. Raises: NotAdmitted."""

        def enter(connection: Connection) -> Session:
            user_id = admit(connection, identity, allowed_domains=self._allowed_domains, now=self._clock())
            return self._begin(connection, user_id, ended)

        try:
            opened = await asyncio.to_thread(self._write_twice, enter)
        except NotAdmitted as error:
            _log.warning("sign-in failed", method="oidc", issuer=identity.issuer, reason=str(error))
            raise
        _log.info("signed in", method="oidc", issuer=identity.issuer, user_id=opened.user.id)
        return opened

    async def change_password(self, session: Session, old: str, new: str, *, address: str) -> None:
        """Change the password of whoever has a session, and end their other sessions.

        Raises: Forbidden for a wrong old password; Conflict where there is none; Unacceptable; TooManyAttempts;
        TooBusy.
        """
        user = session.user
        account = await asyncio.to_thread(self._password_account, user.id)
        if account is None:
            raise Conflict("This account has no password: it is opened by single sign-on")
        self._attempts.begin(user.email, address, time.monotonic())
        if not await self._passwords.verify(old, account.password_hash):
            _log.warning("password not changed", user_id=user.id, address=address)
            raise Forbidden("The old password is wrong")
        self._attempts.succeed(user.email, address)
        if old == new:
            raise Unacceptable("the new password is the old one", param="new")
        password_hash = await self._passwords.hash(new, param="new")

        def change(connection: Connection) -> None:
            set_password(
                connection,
                organization_id=user.organization_id,
                user_id=user.id,
                password_hash=password_hash,
                actor=Actor("HUMAN", user.id, {"email": user.email}),
                now=self._clock(),
                keep_session=session.secret,
            )

        await asyncio.to_thread(self._write, change)
        _log.info("password changed", user_id=user.id, address=address)

    async def find(self, secret: str) -> Session | None:
        """Return the session with this secret, if it goes on."""
        user = await asyncio.to_thread(self._find, secret)
        return None if user is None else Session(secret, user)

    async def end(self, secret: str) -> None:
        """End the session with this secret, if there is one."""
        await asyncio.to_thread(self._write, lambda connection: end_session(connection, secret))

    async def _first_match(
        self, accounts: Sequence[PasswordAccount], password: str
    ) -> PasswordAccount | None:
        if not accounts:
            await self._passwords.verify(password, None)
        for account in accounts:
            if await self._passwords.verify(password, account.password_hash):
                return account
        return None

    async def _open(self, account: PasswordAccount, password: str, ended: str | None) -> Session | None:
        is_outdated = needs_rehash(account.password_hash)
        rehashed = await self._passwords.hash(password) if is_outdated else None

        def begin(connection: Connection) -> Session | None:
            is_good = confirm_password(connection, account, rehashed=rehashed)
            return self._begin(connection, account.user_id, ended) if is_good else None

        return await asyncio.to_thread(self._write, begin)

    def _begin(self, connection: Connection, user_id: str, ended: str | None) -> Session:
        now = self._clock()
        if ended is not None:
            end_session(connection, ended)
        secret = create_session(connection, user_id, now=now, lifetime=self._lifetime)
        user = find_session(connection, secret, now)
        assert user is not None  # it was made in this transaction
        return Session(secret, user)

    def _find(self, secret: str) -> SessionUser | None:
        with self._database.read() as connection:
            return find_session(connection, secret, self._clock())

    def _password_accounts(self, email: str) -> Sequence[PasswordAccount]:
        with self._database.read() as connection:
            return find_password_accounts(connection, email)

    def _password_account(self, user_id: str) -> PasswordAccount | None:
        with self._database.read() as connection:
            return find_password_account(connection, user_id)

    def _is_invitation_open(self, secret: str) -> bool:
        with self._database.read() as connection:
            return is_invitation_open(connection, secret, self._clock())

    def _write(self, change: Callable[[Connection], _T]) -> _T:
        with self._database.write() as connection:
            return change(connection)

    def _write_twice(self, change: Callable[[Connection], _T]) -> _T:
        """Try once more where the same person came twice at the same time, and the other one was first."""
        try:
            return self._write(change)
        except (Conflict, IntegrityError):
            return self._write(change)
