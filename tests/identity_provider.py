"""An OpenID Connect provider in a process of its own, on a loopback port, told by tests who signs in and what is wrong.

What runs there stands in provider_site.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

CLIENT_ID = "mezzo-client"
CLIENT_SECRET = "a-secret-that-the-provider-gave-to-us"


class IdentityProvider:
    """The running provider, seen from the tests."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.provider_site import run; run()", CLIENT_ID, CLIENT_SECRET],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        assert self._process.stdout is not None
        self._url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self._client = httpx.Client(trust_env=False, timeout=30)
        self.issuer = self._url + "/o"

    def redirect_to(self, uri: str) -> None:
        """Register where the client may come back to."""
        self._tell({"redirect_uri": uri})

    def sign_in_as(self, subject: str, **claims: Any) -> None:
        """Say who is in front of the browser. They are asked nothing."""
        self._tell({"person": {"sub": subject, **claims}})

    def spoil(self, fault: str | None) -> None:
        """Say what is wrong with answers from now on, None for nothing. The names stand in provider_site.py."""
        self._tell({"fault": fault})

    def stop(self) -> None:
        self._client.close()
        self._process.communicate(timeout=10)

    def _tell(self, what: dict[str, Any]) -> None:
        self._client.post(f"{self._url}/test", json=what).raise_for_status()


@pytest.fixture(scope="session")
def identity_provider_process() -> Iterator[IdentityProvider]:
    provider = IdentityProvider()
    yield provider
    provider.stop()


@pytest.fixture
def identity_provider(identity_provider_process: IdentityProvider) -> IdentityProvider:
    """The identity provider of this run, with nothing wrong."""
    identity_provider_process.spoil(None)
    return identity_provider_process
