"""The URLs that chunks may hold: `data:` URIs, whose bytes are in them, and addresses of files on the web.

Strict on purpose: where two programs may read a URL differently, it is refused, since the difference is how
checks are got around.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import unquote_to_bytes

import httpx

from mezzo.prompt.media.addresses import IPAddress

MAX_URL_LENGTH = 8192

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# What the C library's resolver would take for an IPv4 address: 127.1, 0x7f000001, 2130706433.
_LOOKS_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)
_PARAMETER = re.compile(r"[\w!#$&^.+-]+=[^;,]*", re.ASCII)
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")
_AUTHORITY = re.compile(r"(?:[^/?#]*:)?//([^/?#]*)|")
_PORTS = {"http": 80, "https": 443}


class InvalidUrl(ValueError):
    """A URL that no fetch will be tried for; the message is for the client and shows nothing of the URL."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one hop goes.

    url       as it is asked for, without fragment
    host      lower case, ASCII (punycode), without the root's dot; the text of an address has no brackets
    address   if the host is an address, else None
    """

    url: httpx.URL
    host: str
    port: int
    address: IPAddress | None


def is_data_uri(url: str) -> bool:
    """Return whether a URL holds its own bytes."""
    return url[:5].lower() == "data:"


def parse_target(text: str, *, base: Target | None = None) -> Target:
    """Read an http(s) URL; a relative one only against `base`, the hop that redirected to it.

    Raises: InvalidUrl for other schemes, credentials, and hosts that are neither a name nor a plain address.
    """
    if len(text) > MAX_URL_LENGTH:
        raise InvalidUrl(f"a URL may have at most {MAX_URL_LENGTH} characters; send a data: URI instead")
    if _UNSAFE.search(text):
        raise InvalidUrl("the URL has characters that must be escaped")
    try:
        url = httpx.URL(text) if base is None else base.url.join(text)
        host = url.raw_host.decode("ascii")
        port = url.port
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise InvalidUrl("the URL is not valid") from None
    if url.scheme not in _PORTS:
        raise InvalidUrl("a URL must begin with https://, http:// or data:")
    authority = _AUTHORITY.match(text)
    if authority is not None and "@" in (authority[1] or ""):
        raise InvalidUrl("a URL with a user name or password is not fetched")
    if port is not None and not 0 < port < 65536:
        raise InvalidUrl("the URL has no valid port")
    name, address = _read_host(host)
    if address is None and host.endswith("."):
        url = url.copy_with(host=name)
    return Target(url.copy_with(fragment=None), name, _PORTS[url.scheme] if port is None else port, address)


def _read_host(host: str) -> tuple[str, IPAddress | None]:
    host = host.lower()
    if "%" not in host:  # neither zone ids nor escapes
        try:
            return host, ip_address(host)
        except ValueError:
            pass
    name = host.removesuffix(".")
    labels = name.split(".")
    is_name = len(name) <= 253 and all(map(_LABEL.fullmatch, labels))
    if not is_name or _LOOKS_NUMERIC.fullmatch(labels[-1]):
        raise InvalidUrl("the URL has no valid host")
    return name, None


def decode_data_uri(uri: str, *, max_bytes: int) -> bytes:
    """Return the bytes of a `data:` URI (RFC 2397), base64 or percent-encoded.

    The media type is checked for its form and then not believed: what the bytes are is read from the bytes.
    Base64 is of the standard alphabet, padded, without line breaks. Raises: InvalidUrl.
    """
    head, comma, body = uri[5:].partition(",")
    if not comma:
        raise InvalidUrl("the data: URI has no comma")
    *media, last = head.split(";")
    is_base64 = bool(media) and last.strip().lower() == "base64"
    _check_media_type([*media] if is_base64 else [*media, last])
    # Before anything is allocated. At most a byte becomes 4/3 characters, each of them an escape of three.
    longest = 4 * (max_bytes + 2) if "%" in body else 4 * ((max_bytes + 2) // 3) if is_base64 else max_bytes
    if len(body) > longest:
        raise too_large(max_bytes)
    data = _from_base64(body) if is_base64 else _unescape(body)
    if len(data) > max_bytes:
        raise too_large(max_bytes)
    return data


def too_large(max_bytes: int) -> InvalidUrl:
    """Return the error of a file over the limit."""
    return InvalidUrl(f"the file is larger than {max_bytes} bytes")


def _check_media_type(parts: list[str]) -> None:
    media_type, *parameters = parts
    if media_type and not _MEDIA_TYPE.fullmatch(media_type):
        raise InvalidUrl("the data: URI has no valid media type")
    if not all(map(_PARAMETER.fullmatch, parameters)):
        raise InvalidUrl("the data: URI has an invalid parameter; base64 stands right before the comma")


def _from_base64(body: str) -> bytes:
    encoded = _unescape(body) if "%" in body else body
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:  # binascii.Error too
        raise InvalidUrl("the data: URI is not valid base64") from None


def _unescape(body: str) -> bytes:
    if not body.isascii() or _BAD_ESCAPE.search(body) or any(c in body for c in " \t\r\n"):
        raise InvalidUrl("the data: URI is not validly percent-encoded")
    return unquote_to_bytes(body)
