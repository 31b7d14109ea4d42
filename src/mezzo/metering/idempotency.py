"""Calls that are safe to send again: the header `Idempotency-Key`.

The first call with a key claims it, in the transaction that admits the request. A second one with the same body gets
the stored answer, or waits while the first is in flight; one with another body is refused. Keys belong to a workspace
(admin calls: to the organisation) and are forgotten after a day. Answers are encrypted, because they hold what users
wrote; a stolen database does not tell them.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from cryptography.fernet import InvalidToken
from sqlalchemy.engine import Connection

from mezzo.kit.sealing import sealing_key
from mezzo.store.database import Database, insert_into
from mezzo.store.tables import idempotency_keys

LIFETIME = timedelta(hours=24)
MAX_KEY_LENGTH = 255


@dataclass(frozen=True, slots=True)
class Claim:
    """A key and what it is for.

    scope_id      the workspace or organisation whose key it is
    fingerprint   of the call; a key stands for one call only
    """

    scope_id: str
    key_hash: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SealedAnswer:
    """An answer as it is stored: its status in the open, the rest encrypted."""

    status: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer as it was sent. headers: those worth repeating, by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes


class KeyReused(Exception):
    """The key was used with another call before."""


class InFlight(Exception):
    """The first call with this key has not been answered yet."""


def claim_for(scope_id: str, key: str, *, method: str, path: str, body: bytes) -> Claim:
    """Return the claim of a call."""
    call = hashlib.sha256(f"{method} {path}\0".encode() + body).hexdigest()
    return Claim(scope_id, hashlib.sha256(key.encode()).hexdigest(), call)


class AnswerSeal:
    """Encrypts stored answers with a key derived from the installation's secret."""

    def __init__(self, secret: str) -> None:
        self._fernet = sealing_key(secret, "stored answers")

    def seal(self, answer: KeptAnswer) -> SealedAnswer:
        """Return the answer as it is stored."""
        head = json.dumps(answer.headers).encode()
        plain = len(head).to_bytes(4, "big") + head + answer.body
        return SealedAnswer(answer.status, self._fernet.encrypt(zlib.compress(plain, 1)))

    def open(self, answer: SealedAnswer) -> KeptAnswer:
        """Return the answer as it was sent. Raises: ValueError if another secret sealed it, or it was tampered with."""
        try:
            plain = zlib.decompress(self._fernet.decrypt(answer.sealed))
        except InvalidToken:
            raise ValueError("the stored answer was sealed with another secret") from None
        start = 4 + int.from_bytes(plain[:4], "big")
        return KeptAnswer(answer.status, json.loads(plain[4:start]), plain[start:])


def find_answer(connection: Connection, claim: Claim, now: datetime) -> SealedAnswer | None:
    """Return the stored answer for a claim, None if nobody holds the key. Raises: KeyReused, InFlight."""
    row = connection.execute(
        sa.select(idempotency_keys.c.fingerprint, idempotency_keys.c.status, idempotency_keys.c.answer).where(
            _is_key(claim), idempotency_keys.c.created_at > now - LIFETIME
        )
    ).one_or_none()
    if row is None:
        return None
    if row.fingerprint != claim.fingerprint:
        raise KeyReused
    if row.status is None:
        raise InFlight
    return SealedAnswer(row.status, row.answer)


def take(
    connection: Connection,
    database: Database,
    claim: Claim,
    *,
    request_id: str,
    server_id: str,
    now: datetime,
) -> bool:
    """Claim a key for a request; False if another request holds it. Taking it twice for one request is fine."""
    connection.execute(
        sa.delete(idempotency_keys).where(_is_key(claim), idempotency_keys.c.created_at <= now - LIFETIME)
    )
    connection.execute(
        insert_into(idempotency_keys, database.dialect)
        .values(
            scope_id=claim.scope_id,
            key_hash=claim.key_hash,
            fingerprint=claim.fingerprint,
            request_id=request_id,
            server_id=server_id,
            created_at=now,
        )
        .on_conflict_do_nothing()
    )
    holder = connection.execute(sa.select(idempotency_keys.c.request_id).where(_is_key(claim))).scalar_one()
    return bool(holder == request_id)


def keep(connection: Connection, request_id: str, answer: SealedAnswer | None) -> None:
    """Store the answer of the request that holds a key, or give the key back if there is none worth keeping."""
    mine = idempotency_keys.c.request_id == request_id
    if answer is None:
        connection.execute(sa.delete(idempotency_keys).where(mine))
    else:
        connection.execute(
            sa.update(idempotency_keys).where(mine).values(status=answer.status, answer=answer.sealed)
        )


def forget_old(connection: Connection, now: datetime) -> None:
    """Delete answers that are past their day."""
    connection.execute(sa.delete(idempotency_keys).where(idempotency_keys.c.created_at <= now - LIFETIME))


def _is_key(claim: Claim) -> sa.ColumnElement[bool]:
    return sa.and_(
        idempotency_keys.c.scope_id == claim.scope_id, idempotency_keys.c.key_hash == claim.key_hash
    )
