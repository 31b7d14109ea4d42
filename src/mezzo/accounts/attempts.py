"""How often a password may be guessed: so many times for one address of email, and from one address of the network.

Counted in this process: several servers allow as many times more.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict

from mezzo.accounts.errors import TooManyAttempts

WINDOW_S = 15 * 60
MAX_BY_EMAIL = 10
# Larger, because whole offices, and everybody behind one proxy, share an address.
MAX_BY_ADDRESS = 50
_MAX_REMEMBERED = 20_000


class Attempts:
    """Attempts of the last WINDOW_S that failed, or have not ended yet. Not safe for threads.

    `now` is in seconds of a clock that does not go back. An attempt counts from its beginning, so that many at the
    same time are no way around the limit.
    """

    def __init__(self) -> None:
        # Moments by what they count against, the least recently used first.
        self._moments: OrderedDict[tuple[str, str], list[float]] = OrderedDict()

    def begin(self, email: str, address: str, now: float) -> None:
        """Count an attempt, whether or not anybody has this email. Raises: TooManyAttempts, without counting it."""
        counted = [
            (self._of("email", email), MAX_BY_EMAIL),
            (self._of("address", _network(address)), MAX_BY_ADDRESS),
        ]
        free_at = max(_free_at(moments, limit, now) for moments, limit in counted)
        if free_at > now:
            raise TooManyAttempts(math.ceil(free_at - now))
        for moments, _ in counted:
            moments.append(now)

    def succeed(self, email: str, address: str) -> None:
        """Forget the failures of an email, whose owner came, and the last attempt from their address."""
        self._moments.pop(("email", email), None)
        moments = self._of("address", _network(address))
        if moments:
            moments.pop()

    def _of(self, kind: str, name: str) -> list[float]:
        moments = self._moments.setdefault((kind, name), [])
        self._moments.move_to_end((kind, name))
        if len(self._moments) > _MAX_REMEMBERED:
            self._moments.popitem(last=False)
        return moments


def _free_at(moments: list[float], limit: int, now: float) -> float:
    """Return when one more is within the limit, having forgotten what is out of the window."""
    while moments and moments[0] <= now - WINDOW_S:
        del moments[0]
    return moments[0] + WINDOW_S if len(moments) >= limit else now


def _network(address: str) -> str:
    """Return an IPv4 address as it is, and of an IPv6 address the 64 bits that its owner did not choose."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
