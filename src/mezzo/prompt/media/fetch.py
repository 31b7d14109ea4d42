"""The bytes behind a URL, without letting whoever wrote the URL reach what only this machine can reach.

For each hop the name is resolved once, every address it has must be permitted, and the connection is made to one
of those very addresses, with the name in `Host` and in the TLS handshake. There is nothing to swap in between.
Redirects are followed here, each checked like the first URL. No proxies, cookies or credentials are involved.

What a client learns of a failed fetch is one sentence for all causes, no sooner than `min_failure_s`: neither
words nor, as far as resolving takes less than that, time tell a refused address from a name that does not exist.
What remains: a name server slower than that shows in the time, and so does a host that is permitted and hangs.
Remote fetches run on an event loop of their own: an answer of a million tiny pieces costs that loop its time, and no
stream a token.
Public addresses of one's own network cannot be known here; a firewall is what keeps this process from them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from ipaddress import ip_address
from typing import Protocol

import httpx
import structlog

from mezzo.prompt.media.addresses import AddressPolicy, IPAddress, PublicAddresses
from mezzo.prompt.media.side_loop import SideLoop
from mezzo.prompt.media.urls import InvalidUrl, Target, decode_data_uri, is_data_uri, parse_target, too_large

NOT_FETCHED = "File could not be fetched from url"
FETCHING_IS_OFF = "this server does not fetch URLs; send the file as a data: URI"

_CONNECT_TIMEOUT_S = 5.0
# An answer in smaller pieces than these costs more to take apart than it holds.
_MAX_SMALL_PIECES, _USUAL_PIECE_BYTES = 1000, 256
_MAX_ADDRESSES = 3  # tried one after the other when connecting fails
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Decoding this much takes some ten milliseconds; more of it is done in a thread, where streams do not wait.
_MAX_INLINE_CHARACTERS = 1024 * 1024

_log = structlog.get_logger("mezzo.prompt")


class FetchError(Exception):
    """A URL whose bytes cannot be had; `message` is for the client."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class _Failed(Exception):
    """Why a fetch failed, for the operator's log only."""


class Resolver(Protocol):
    """Turns names into addresses."""

    async def resolve(self, host: str, port: int) -> Sequence[IPAddress]:
        """Return the addresses of `host`, best first. Raises: OSError if it has none."""


class SystemResolver:
    """The system's resolver, in threads of its own: names that resolve slowly hold up nobody else's threads."""

    def __init__(self, *, max_threads: int = 8) -> None:
        self._threads = ThreadPoolExecutor(max_threads, thread_name_prefix="resolver")

    async def resolve(self, host: str, port: int) -> Sequence[IPAddress]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, self._resolve, host, port)
        return list(dict.fromkeys(found))

    @staticmethod
    def _resolve(host: str, port: int) -> list[IPAddress]:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # A zone id (fe80::1%eth0) is cut off: such addresses are refused anyway, zone or not.
        return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries]


class Fetcher:
    """Gets files by URL. One per server; used from one event loop.

    enabled         whether http(s) is fetched at all; `data:` URIs always are
    policy          which addresses may be connected to
    timeout_s       for one file, from the name to the last byte, redirects included
    max_concurrent  remote fetches at a time, in the whole server
    min_failure_s   a failed remote fetch takes at least this long
    ssl_context     how servers prove who they are; certifi's authorities if None
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        policy: AddressPolicy | None = None,
        resolver: Resolver | None = None,
        timeout_s: float = 20.0,
        max_redirects: int = 5,
        max_concurrent: int = 16,
        min_failure_s: float = 0.5,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.enabled = enabled
        self.timeout_s = timeout_s
        self.max_redirects = max_redirects
        self.min_failure_s = min_failure_s
        self._policy = PublicAddresses() if policy is None else policy
        self._resolver = SystemResolver() if resolver is None else resolver
        self._slots = asyncio.Semaphore(max_concurrent)  # of the side loop
        self._side_loop = SideLoop("fetch")
        self._given_ssl_context = ssl_context

    async def fetch(self, url: str, *, max_bytes: int) -> bytes:
        """Return the file behind a `data:`, http or https URL.

        Raises: FetchError, also when the file is larger than `max_bytes`; no more than that is ever held.
        """
        try:
            if is_data_uri(url):
                return await self._decode(url, max_bytes)
            target = parse_target(url)
        except InvalidUrl as error:
            raise FetchError(str(error)) from None
        if not self.enabled:
            raise FetchError(FETCHING_IS_OFF)
        return await self._side_loop.run(self._fetch_in_turn(target, max_bytes))

    async def _fetch_in_turn(self, target: Target, max_bytes: int) -> bytes:
        async with self._slots:
            return await self._fetch_in_time(target, max_bytes)

    async def _decode(self, uri: str, max_bytes: int) -> bytes:
        if len(uri) <= _MAX_INLINE_CHARACTERS:
            return decode_data_uri(uri, max_bytes=max_bytes)
        return await asyncio.to_thread(decode_data_uri, uri, max_bytes=max_bytes)

    async def _fetch_in_time(self, target: Target, max_bytes: int) -> bytes:
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._follow(target, max_bytes)
        except FetchError:
            raise
        except TimeoutError:
            reason = "timeout"
        except (_Failed, InvalidUrl) as error:
            reason = str(error)
        except (OSError, UnicodeError, httpx.HTTPError, httpx.InvalidURL) as error:
            reason = type(error).__name__
        _log.info("file not fetched", reason=reason)
        await asyncio.sleep(max(0.0, start + self.min_failure_s - loop.time()))
        raise FetchError(NOT_FETCHED)

    async def _follow(self, target: Target, max_bytes: int) -> bytes:
        for _ in range(self.max_redirects + 1):
            answer = await self._hop(target, max_bytes)
            if isinstance(answer, bytes):
                return answer
            following = parse_target(answer, base=target)
            if target.url.scheme == "https" and following.url.scheme != "https":
                raise _Failed("redirect from https to http")
            target = following
        raise _Failed("too many redirects")

    async def _hop(self, target: Target, max_bytes: int) -> bytes | str:
        """Return the file, or where the server sends us on."""
        addresses = await self._permitted_addresses(target)
        for address in addresses[:-1]:
            try:
                return await self._get(target, address, max_bytes)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._get(target, addresses[-1], max_bytes)

    async def _permitted_addresses(self, target: Target) -> Sequence[IPAddress]:
        if target.address is None:
            addresses = await self._resolver.resolve(target.host, target.port)
        else:
            addresses = [target.address]
        if not addresses:
            raise _Failed("the name has no address")
        # One that is not permitted refuses all: a public site does not have private addresses on the side.
        if not all(self._policy.permits(target.host, address, target.port) for address in addresses):
            raise _Failed("address or port not permitted")
        return addresses[:_MAX_ADDRESSES]

    async def _get(self, target: Target, address: IPAddress, max_bytes: int) -> bytes | str:
        # The transport, not a client: nothing between here and the socket adds, follows or remembers anything.
        transport = httpx.AsyncHTTPTransport(verify=self._ssl_context, trust_env=False)
        async with transport:
            response = await transport.handle_async_request(_request(target, address, self.timeout_s))
            try:
                if response.status_code in _REDIRECTS and "location" in response.headers:
                    return response.headers["location"]
                if response.status_code != 200:
                    raise _Failed(f"status {response.status_code}")
                return await _read(response, max_bytes)
            finally:
                await response.aclose()

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        if self._given_ssl_context is not None:
            return self._given_ssl_context
        return httpx.create_ssl_context(trust_env=False)


def _request(target: Target, address: IPAddress, timeout_s: float) -> httpx.Request:
    """Make the request to one address of a host, which is named in `Host` and, for TLS, in the handshake."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    timeouts = {
        "connect": min(timeout_s, _CONNECT_TIMEOUT_S),
        "read": timeout_s,
        "write": timeout_s,
        "pool": None,
    }
    return httpx.Request(
        "GET",
        target.url.copy_with(host=str(address)),
        headers={
            "Host": host if target.url.port is None else f"{host}:{target.port}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "User-Agent": "mezzo",
            "Connection": "close",
        },
        extensions={"timeout": timeouts, "sni_hostname": target.host},
    )


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    # We asked for none, so there is nothing that could unpack to more than was sent.
    if response.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise _Failed("compressed answer")
    # The HTTP parser has refused lengths that are no numbers.
    if int(response.headers.get("content-length", 0)) > max_bytes:
        raise FetchError(str(too_large(max_bytes)))
    body = bytearray()
    num_pieces = 0
    async for piece in response.aiter_raw():
        body += piece
        num_pieces += 1
        if num_pieces > _MAX_SMALL_PIECES + len(body) // _USUAL_PIECE_BYTES:
            raise _Failed("an answer in tiny pieces")
        if len(body) > max_bytes:
            raise FetchError(str(too_large(max_bytes)))
    return bytes(body)
