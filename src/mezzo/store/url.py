"""URLs of databases, judged without importing what opens them: settings are read before anything slow is."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

_NUMBER = re.compile(r"[0-9]+")
# What may stand behind the `?` of a Redis URL. Others would override what mezzo relies on, such as timeouts.
_REDIS_OPTIONS = {
    "redis": frozenset[str](),
    "rediss": frozenset(
        {"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
    ),
    "unix": frozenset({"db"}),
}
_POSTGRESQL = frozenset({"postgresql", "postgres", "postgresql+psycopg"})


class DatabaseUrlInvalid(ValueError):
    """A URL that is not one of the supported databases'. The message never holds the URL: it may have a password."""


def check_url(url: str) -> None:
    """Check that a URL names a SQLite file or a PostgreSQL database. Raises: DatabaseUrlInvalid."""
    scheme = _split(url).scheme
    if scheme == "sqlite":
        sqlite_path(url)
    elif scheme not in _POSTGRESQL:
        raise DatabaseUrlInvalid("a database URL is sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")


def check_redis_url(url: str) -> None:
    """Check that a URL names a Redis database as redis-py reads it. Raises: DatabaseUrlInvalid."""
    parts = _split(url)
    if parts.scheme not in _REDIS_OPTIONS:
        raise DatabaseUrlInvalid(
            "a Redis URL is redis://USER:PASSWORD@HOST:PORT/NUMBER, the same with rediss:// for TLS, or unix:///PATH"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = _REDIS_OPTIONS[parts.scheme]
    if not options.keys() <= known:
        # The one that is not known stays unnamed: it may be what follows a `?` in a password.
        names = ", ".join(sorted(known)) or "none"
        raise DatabaseUrlInvalid(f"the options that a {parts.scheme}:// URL may have: {names}")
    if parts.scheme == "unix":
        if not parts.path.startswith("/") or _host(parts):
            raise DatabaseUrlInvalid("a Redis socket is named unix:///absolute/path")
        number = options.get("db", "0")
    else:
        if not _host(parts):
            raise DatabaseUrlInvalid("a Redis URL names a host")
        number = parts.path.removeprefix("/") or "0"
    if not _NUMBER.fullmatch(number):
        raise DatabaseUrlInvalid("a database of Redis is a number")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise DatabaseUrlInvalid("this is not a URL") from None


def _host(parts: SplitResult) -> str | None:
    try:
        parts.port  # noqa: B018  judges it; the error it raises would repeat what may be a part of the password
    except ValueError:
        raise DatabaseUrlInvalid(
            "the port of a Redis URL is a number up to 65535; a password's `:/?#@` are written as %3A %2F %3F %23 %40"
        ) from None
    return parts.hostname


def is_sqlite(url: str) -> bool:
    """Tell whether a URL that was checked names a SQLite file."""
    return urlsplit(url).scheme == "sqlite"


def sqlite_path(url: str) -> Path:
    """Return the file that a `sqlite://` URL names. Raises: DatabaseUrlInvalid, also for a database in memory."""
    parts = urlsplit(url)
    path = unquote(parts.path)[1:]
    if parts.netloc or parts.query or path in {"", ":memory:"}:
        raise DatabaseUrlInvalid(
            "a SQLite database is named sqlite:///relative/path or sqlite:////absolute/path"
        )
    return Path(path).absolute()


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file."""
    return f"sqlite:///{quote(str(path.absolute()))}"
