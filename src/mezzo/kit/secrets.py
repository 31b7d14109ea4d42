"""API keys: made, compared, shortened for display, and kept on this machine."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from pathlib import Path

from mezzo.kit.private_file import write_private

KEY_PREFIX = "mz-"
ADMIN_KEY_PREFIX = "mza-"
_RANDOM_BYTES = 32
_SHOWN_CHARACTERS = 4
# A shorter secret than this is not shown even in part: four characters of it would be too much of it.
_SHORTEST_SHOWN = 16


class MachineKeyError(Exception):
    """The file of this machine's key exists and does not hold a key."""


def new_api_key() -> str:
    """Return a key of 256 random bits, recognisable by its prefix: `mz-` and 43 URL-safe characters."""
    return KEY_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def new_admin_key() -> str:
    """Return a key for the admin API, told from others by its prefix `mza-`."""
    return ADMIN_KEY_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def new_secret() -> str:
    """Return 256 random bits as 43 URL-safe characters: of a session, an invitation, an installation."""
    return secrets.token_urlsafe(_RANDOM_BYTES)


def mask(key: str) -> str:
    """Shorten a key for logs and lists: `mz-…wxyz`, or `…` alone when it is too short to show any of it."""
    prefix = next((prefix for prefix in (KEY_PREFIX, ADMIN_KEY_PREFIX) if key.startswith(prefix)), "")
    shown = key[-_SHOWN_CHARACTERS:] if len(key) - len(prefix) >= _SHORTEST_SHOWN else ""
    return f"{prefix}…{shown}"


def is_same_secret(left: str, right: str) -> bool:
    """Compare two secrets in a time that does not tell where they differ."""
    return hmac.compare_digest(left.encode(), right.encode())


def hash_secret(secret: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal: what may be stored, and names a key in counters.

    A plain hash suffices because keys are random; it is no way to store a password.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def fingerprint(secret: str) -> str:
    """Return what tells whether two secrets are the same and nothing else: another hash than `hash_secret`'s."""
    return hashlib.sha256(b"mezzo fingerprint\0" + secret.encode()).hexdigest()


def machine_key(path: Path, make: Callable[[], str] = new_api_key) -> str:
    """Return the key kept in `path`, making it on the first call.

    Processes that start at the same time agree on one key. The file is readable by its owner only.
    Raises: MachineKeyError if the file holds something else; OSError if it cannot be read or written.
    """
    if not path.exists():
        from filelock import FileLock  # noqa: PLC0415  not needed where there is a key

        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            if not path.exists():
                write_private(path, make() + "\n")
    key = path.read_text(encoding="utf-8").strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise MachineKeyError(f"{path} does not hold an API key; delete it and a new one is made")
    return key
