"""Which addresses a fetch on a client's behalf may connect to.

The tables are those of the IANA special-purpose registries (IPv4 and IPv6, 2025), written out here because
`ipaddress.is_global` changed its answers between patch releases of Python. A test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Protocol

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_REFUSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # "this network"; Linux takes 0.0.0.0 for loopback
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; some clouds keep services there
        "127.0.0.0/8",
        "168.63.129.16/32",  # a public address that is Azure's own service inside each of its machines
        "169.254.0.0/16",  # link-local, the metadata services of the clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# All that is routed in public. What lies outside (loopback, mapped and compatible IPv4, unique local, link-local,
# multicast, ...) needs no list.
_PUBLIC_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",
        "2002::/16",  # 6to4, given up in 2015 (RFC 7526); each address holds an IPv4 address
        "3fff::/20",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
# What clouds tell their machines about themselves, credentials included: never, whatever an operator lists.
_METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200"))
)


class AddressPolicy(Protocol):
    """Decides whether a connection may be made."""

    def permits(self, host: str, address: IPAddress, port: int) -> bool:
        """Return whether `address`, one of those that `host` has, may be connected to at `port`."""


def is_public(address: IPAddress) -> bool:
    """Return whether an address belongs to a host on the public internet.

    IPv6 addresses that stand for an IPv4 address are judged by it where they are still in use (mapped, NAT64)
    and are refused where they are not (compatible, 6to4, Teredo).
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    inner = embedded_v4(address)
    if inner is not None:
        return is_public(inner)
    return address in _PUBLIC_V6 and not any(address in network for network in _REFUSED_V6)


def embedded_v4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that a mapped or NAT64 address stands for."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One entry of an operator's list: a name, an address or a network, at one port or at the usual ones."""

    name: str | None
    network: IPNetwork | None
    port: int | None

    @classmethod
    def parse(cls, entry: str) -> AllowedHost:
        """Read `minio`, `minio:9000`, `10.0.0.5:9000`, `[fd00::1]:9000` or `10.1.0.0/16`.

        Raises: ValueError for anything else.
        """
        host, port = _split_port(entry.strip().lower())
        if not host or (port is not None and not 0 < port < 65536):
            raise ValueError(f"{entry!r} is not a host, host:port or network")
        try:
            return cls(None, ip_network(host), port)
        except ValueError:
            if any(not (c.isalnum() or c in "-_.") for c in host) or host.replace(".", "").isdigit():
                raise ValueError(f"{entry!r} is not a host, host:port or network") from None
            return cls(host.rstrip("."), None, port)

    def covers(self, host: str, address: IPAddress) -> bool:
        """Return whether this entry is about `host`, which has `address`."""
        if self.network is not None:
            return address in self.network
        return host == self.name


class PublicAddresses:
    """Public addresses at the usual ports, and what the operator lists; metadata services never.

    ports           at which any public host, and any listed one without a port of its own, may be asked. Others
                    stay closed: a server that fetches from any port is a port scanner for its clients
    allowed_hosts   see `AllowedHost.parse`. A listed name is trusted with any address that it resolves to
    Raises: ValueError for an entry that is neither host nor network.
    """

    def __init__(
        self, *, ports: frozenset[int] = frozenset({80, 443}), allowed_hosts: tuple[str, ...] = ()
    ) -> None:
        self.ports = ports
        self.allowed_hosts = tuple(map(AllowedHost.parse, allowed_hosts))

    def permits(self, host: str, address: IPAddress, port: int) -> bool:
        if isinstance(address, IPv6Address):
            address = embedded_v4(address) or address
        if address in _METADATA:
            return False
        for allowed in self.allowed_hosts:
            if allowed.covers(host, address):
                is_open = port in self.ports if allowed.port is None else port == allowed.port
                if is_open:
                    return True
        return port in self.ports and is_public(address)


def _split_port(entry: str) -> tuple[str, int | None]:
    if entry.startswith("["):
        host, bracket, rest = entry[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return "", None
        return host, _port(rest[1:]) if rest else None
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, _port(port)
    return entry, None


def _port(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
