"""Encryption with the installation's secret: one derived key for each purpose, so that none opens another's texts."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def sealing_key(secret: str, purpose: str) -> Fernet:
    """Return what encrypts and authenticates for a purpose. Source: HKDF with SHA-256 (RFC 5869); Fernet."""
    derived = HKDF(SHA256(), length=32, salt=None, info=f"mezzo {purpose}".encode()).derive(secret.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
