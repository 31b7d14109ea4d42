"""Weights that are on another machine: `upstream:http://HOST/v1#MODEL`, a server that answers in their place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from mezzo.weights.errors import WeightsError

UPSTREAM_PREFIX = "upstream:"
# A host name or an address, and perhaps a port: what every HTTP client reads alike.
_NETLOC = re.compile(r"(?:[\w-]{1,63}(?:\.[\w-]{1,63})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_HINT = "Write upstream:http://HOST:PORT/v1 or upstream:http://HOST:PORT/v1#MODEL."


@dataclass(frozen=True)
class UpstreamModel:
    """One model of another server.

    base_url   what `/chat/completions` and `/models` stand behind, e.g. `http://10.0.0.7:8001/v1`
    model      its name there
    """

    base_url: str
    model: str

    @property
    def host(self) -> str:
        """The server's host, with the port if it has one."""
        return urlsplit(self.base_url).netloc

    @property
    def name(self) -> str:
        """Short name for cards, logs and metrics: two models of a server have two names."""
        return f"{self.host}#{self.model}"

    @property
    def description(self) -> str:
        """One line for people."""
        return f"upstream {self.host}"


def is_upstream(spec: str) -> bool:
    """Tell whether a spec names a server instead of weights."""
    return spec.startswith(UPSTREAM_PREFIX)


def parse_upstream(spec: str, *, model_id: str) -> UpstreamModel:
    """Read a spec for which `is_upstream` holds. `model_id` is the name to ask for where the spec has none.

    Raises: WeightsError for what is no http(s) URL, or one with credentials or a query.
    """
    text = spec.removeprefix(UPSTREAM_PREFIX)
    url = _split(text)
    if url is None or url.scheme not in {"http", "https"}:
        raise WeightsError(f"{UPSTREAM_PREFIX} is not followed by an http:// or https:// URL.", hint=_HINT)
    if "@" in url.netloc:
        # Not repeated: it holds a password.
        raise WeightsError(
            "The URL of an upstream has a user name in it.",
            hint="Keys stand in the setting upstream_api_key.",
        )
    if not _NETLOC.fullmatch(url.netloc) or url.query or not text.isprintable() or " " in text:
        raise WeightsError(f"{spec} is not the URL of an API.", hint=_HINT)
    return UpstreamModel(
        base_url=f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}", model=url.fragment or model_id
    )


def _split(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text)
        _ = url.port  # raises for one that is no port
    except ValueError:
        return None
    return url
