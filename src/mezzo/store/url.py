"""URLs of databases, judged without importing what opens them: settings are read before anything slow is."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

_POSTGRESQL = frozenset({"postgresql", "postgres", "postgresql+psycopg"})


class DatabaseUrlInvalid(ValueError):
    """A URL that is not one of the supported databases'. The message never holds the URL: it may have a password."""


def check_url(url: str) -> None:
    """Check that a URL names a SQLite file or a PostgreSQL database. Raises: DatabaseUrlInvalid."""
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        sqlite_path(url)
    elif scheme not in _POSTGRESQL:
        raise DatabaseUrlInvalid("a database URL is sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")


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
