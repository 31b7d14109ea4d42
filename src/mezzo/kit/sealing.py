"""What is made of the installation's secret: one derived key for each purpose, so that none opens another's texts."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derived_key(secret: str, purpose: str) -> bytes:
    """Return 32 bytes for a purpose, which tell nothing of the secret. Source: HKDF with SHA-256 (RFC 5869)."""
    return HKDF(SHA256(), length=32, salt=None, info=f"mezzo {purpose}".encode()).derive(secret.encode())


def sealing_key(secret: str, purpose: str) -> Fernet:
    """Return what encrypts and authenticates for a purpose."""
    return Fernet(base64.urlsafe_b64encode(derived_key(secret, purpose)))
