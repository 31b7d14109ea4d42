"""Which address of the network a request comes from, also through proxies of the operator's."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.requests import Request

FORWARDED_HEADER = "x-forwarded-for"


class ClientAddresses:
    """Reads addresses. trusted_proxies: addresses and networks whose word for what came before them is taken."""

    def __init__(self, trusted_proxies: Collection[str]) -> None:
        self._trusted = [ipaddress.ip_network(proxy) for proxy in trusted_proxies]

    def of(self, request: Request) -> str:
        """Return the nearest address that is no trusted proxy's; what stands before it anybody could have written."""
        address = request.client.host if request.client is not None else ""
        hops = ",".join(request.headers.getlist(FORWARDED_HEADER)).split(",")
        while hops and self._is_trusted(address):
            hop = hops.pop().strip()
            if _parsed(hop) is None:
                break
            address = hop
        return address

    def _is_trusted(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._trusted)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    # What an IPv6 socket makes of IPv4.
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
