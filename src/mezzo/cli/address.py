"""Which server a command talks to, and with which key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mezzo.cli.options import read_api_key
from mezzo.cli.output import CommandFailed
from mezzo.cli.serve import is_loopback, local_url

if TYPE_CHECKING:
    from mezzo.settings import Settings


@dataclass(frozen=True)
class Address:
    """A server and the key to it.

    url       without a version, e.g. http://127.0.0.1:8000
    is_here   whether it is on this machine: the environment's proxies are not for it
    """

    url: str
    key: str = field(repr=False)
    is_here: bool


def server_address(url: str | None, api_key: str | None, settings: Settings) -> Address:
    """Return the server at `url`, or this machine's own, with `api_key`, or the key that the settings have.

    Raises: CommandFailed for something that is no URL, or a key that is missing.
    """
    server = _server_url(url, settings)
    is_here = is_loopback(urlsplit(server).hostname or "")
    return Address(server, api_key or _key_for(server, settings, is_here=is_here), is_here)


def _server_url(url: str | None, settings: Settings) -> str:
    if url is None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return local_url(f"http://{host}:{settings.port}")
    if not urlsplit(url).hostname or urlsplit(url).scheme not in ("http", "https"):
        raise CommandFailed(f"--url: {url} is not a URL such as http://127.0.0.1:8000", exit_code=2)
    # Both forms are in use: with the API's version, and without it as Mistral's own SDKs have it.
    return url.rstrip("/").removesuffix("/v1")


def _key_for(server: str, settings: Settings, *, is_here: bool) -> str:
    # This machine's own key is never sent to another machine.
    if settings.api_key is None and not is_here:
        raise CommandFailed(
            f"{server} needs a key", hint="Give it with --api-key KEY or in MEZZO_API_KEY.", exit_code=2
        )
    return read_api_key(settings)
