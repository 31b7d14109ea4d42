"""Passwords: which may be one, how one is kept, and whether it is the right one. Kept as argon2id."""

from __future__ import annotations

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from mezzo.accounts.errors import Unacceptable

MIN_LENGTH = 12
MAX_LENGTH = 1024

_hasher = PasswordHasher()


def hash_password(password: str) -> str:
    """Return what may be stored of a password. Raises: Unacceptable for one that is too short or too long."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise Unacceptable(f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters", param="password")
    return _hasher.hash(password)


def verify_password(password: str, password_hash: str) -> bool:
    """Tell whether `password` is the one that was kept."""
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
