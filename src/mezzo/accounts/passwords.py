"""Passwords: which may be one, how one is kept, and whether it is the right one.

Kept as argon2id in the profile of RFC 9106 for little memory (64 MiB, a tenth of a second or so), each with a salt of
its own. What another keyboard types in another way, `é` as one character or as two, is the same password.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from mezzo.accounts.errors import TooBusy, Unacceptable

MIN_LENGTH = 12
MAX_LENGTH = 1024
NUM_AT_ONCE = 2
MAX_WAITING = 32

_T = TypeVar("_T")
_hasher = PasswordHasher()


def hash_password(password: str, *, param: str = "password") -> str:
    """Return what may be stored of a password.

    param: how an error names it.
    Raises: Unacceptable unless it has MIN_LENGTH to MAX_LENGTH characters.
    """
    encoded = _encoded(password)
    if encoded is None:
        raise Unacceptable(f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters", param=param)
    return _hasher.hash(encoded)


def verify_password(password: str, password_hash: str | None) -> bool:
    """Tell whether `password` is the one that was kept.

    password_hash: None where there is no such user, or one without a password: never the right one. That, and what can
    be no password at all, takes as long as a wrong password, so that time does not tell who has an account.
    """
    encoded = _encoded(password)
    if encoded is None:
        encoded, password_hash = b"", None
    try:
        return _hasher.verify(_matched_by_nothing() if password_hash is None else password_hash, encoded)
    except (VerificationError, InvalidHashError):
        return False


def needs_rehash(password_hash: str) -> bool:
    """Tell whether it was kept with parameters that are no longer today's."""
    return _hasher.check_needs_rehash(password_hash)


class PasswordWork:
    """The same off the event loop, NUM_AT_ONCE at a time, so that neither cores nor memory are used up by guesses."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(NUM_AT_ONCE, thread_name_prefix="password")
        self._num_waiting = 0

    async def hash(self, password: str, *, param: str = "password") -> str:
        """See `hash_password`. Raises: Unacceptable; TooBusy."""
        return await self._run(partial(hash_password, password, param=param))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """See `verify_password`. Raises: TooBusy."""
        return await self._run(partial(verify_password, password, password_hash))

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._num_waiting >= MAX_WAITING:
            raise TooBusy
        self._num_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._num_waiting -= 1


def _encoded(password: str) -> bytes | None:
    """Return what is hashed, None for what can be no password."""
    if len(password) > MAX_LENGTH * 4:  # composing never makes a text that much shorter
        return None
    composed = unicodedata.normalize("NFC", password)
    if not MIN_LENGTH <= len(composed) <= MAX_LENGTH:
        return None
    try:
        return composed.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: no text
        return None


def _matched_by_nothing() -> str:
    """Return random bytes in the form of a hash: to be checked against as a true one is, and never equal."""
    salt = secrets.token_bytes(_hasher.salt_len)
    digest = secrets.token_bytes(_hasher.hash_len)
    parameters = f"m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}"
    return f"$argon2id$v=19${parameters}${_base64(salt)}${_base64(digest)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")
