from __future__ import annotations

import pytest
from starlette.requests import Request

from mezzo.server.client_address import ClientAddresses

PROXIES = ("127.0.0.1", "10.0.0.0/8", "fd00::/8")


def address_of(peer: str | None, *forwarded: str, trusted: tuple[str, ...] = PROXIES) -> str:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    client = None if peer is None else (peer, 1234)
    request = Request({"type": "http", "headers": headers, "client": client})
    return ClientAddresses(trusted).of(request)


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("127.0.0.1", (), "127.0.0.1"),
        ("127.0.0.1", ("192.0.2.1",), "192.0.2.1"),
        ("::ffff:127.0.0.1", ("192.0.2.1",), "192.0.2.1"),
        ("127.0.0.1", ("192.0.2.1, 10.1.2.3",), "192.0.2.1"),
        ("127.0.0.1", ("192.0.2.1", "10.1.2.3"), "192.0.2.1"),
        ("fd00::1", ("2001:db8::1",), "2001:db8::1"),
        ("127.0.0.1", ("10.0.0.1, 10.0.0.2",), "10.0.0.1"),
    ],
)
def test_is_what_trusted_proxies_say(peer: str, forwarded: tuple[str, ...], address: str) -> None:
    assert address_of(peer, *forwarded) == address


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.9", ("192.0.2.1",), "192.0.2.9"),  # nobody's proxy
        ("127.0.0.1", ("203.0.113.5, 192.0.2.1",), "192.0.2.1"),  # the client made up what stands first
        ("127.0.0.1", ("203.0.113.5", "192.0.2.1"), "192.0.2.1"),
        ("127.0.0.1", ("192.0.2.1, nonsense",), "127.0.0.1"),
        ("127.0.0.1", ("",), "127.0.0.1"),
        (None, ("192.0.2.1",), ""),
    ],
)
def test_is_not_what_clients_say(peer: str | None, forwarded: tuple[str, ...], address: str) -> None:
    assert address_of(peer, *forwarded) == address


def test_nobody_is_trusted_unless_told() -> None:
    assert address_of("127.0.0.1", "192.0.2.1", trusted=()) == "127.0.0.1"
