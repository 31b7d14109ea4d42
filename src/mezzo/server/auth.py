"""Who is calling: bearer tokens against the keys that this server knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request

from mezzo.kit.secrets import hash_secret, is_same_secret, mask
from mezzo.protocol.errors import Unauthorized


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose key was good.

    key_id   names the key in counters; the key cannot be told from it
    label    the key as people may see it, e.g. `mz-…wxyz`
    """

    key_id: str
    label: str


class KeyVerifier(Protocol):
    """Knows which keys are good."""

    def verify(self, key: str) -> Caller | None:
        """Return the owner of `key`, or None. Takes the same time for a near miss as for a far one."""


class SingleKeyVerifier:
    """The one key of a server without accounts, kept as a hash."""

    def __init__(self, key: str) -> None:
        self._hash = hash_secret(key)
        self._caller = Caller(key_id=self._hash[:16], label=mask(key))

    def verify(self, key: str) -> Caller | None:
        """Return the caller if `key` is the key."""
        return self._caller if is_same_secret(hash_secret(key), self._hash) else None


def authenticate(request: Request, verifier: KeyVerifier) -> Caller:
    """Return who sent a request.

    Raises: Unauthorized, `Unauthorized` without a bearer token and `Invalid API Key` for one nobody has.
    """
    values = request.headers.getlist("authorization")
    if len(values) != 1:
        raise Unauthorized("Unauthorized")
    scheme, _, key = values[0].partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized("Unauthorized")
    caller = verifier.verify(key)
    if caller is None:
        raise Unauthorized("Invalid API Key")
    return caller
