"""Logs as data: a fixed message and fields, one line each, on stderr, without secrets and without prompts.

Every logger ends here, structlog's and the standard library's (uvicorn's among them). Text that users sent or
received is only ever logged in the fields `prompt` and `completion`, which are dropped unless the operator
asked for them.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog

from mezzo.kit.secrets import mask

LogFormat = Literal["auto", "json", "console"]

PROMPT_FIELDS = frozenset({"prompt", "completion"})
_SECRET_FIELDS = frozenset(
    {"authorization", "proxy-authorization", "api_key", "api-key", "x-api-key", "cookie"}
)
# An authorization value's scheme stays readable, its credential does not.
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[^\s\"',;)}\]]+")
# Our own keys, and the `sk-`, `hf_` … kind that other services hand out.
_KEY = re.compile(r"\b(?:mza?-|sk-|hf_)[A-Za-z0-9_-]{16,}")
_SHORTEST_LITERAL = 4


class SecretMasker:
    """A processor that masks whatever looks like a key or an Authorization header, in every field and depth.

    secrets: further strings to mask wherever they stand, such as a key chosen by the operator. Those under
    four characters are left alone: replacing them would garble every line and hide nothing.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._masks = {secret: mask(secret) for secret in secrets if len(secret) >= _SHORTEST_LITERAL}
        # Hardly a text has any of this, and looking for it takes a fraction of masking it.
        suspects = ("(?i:bearer|basic)", "mz-", "sk-", "hf_", *map(re.escape, self._masks))
        self._is_suspect = re.compile("|".join(suspects)).search

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for name, value in event.items():
            if not name.startswith("_"):  # structlog's own, removed before rendering
                event[name] = self._masked_field(name, value)
        return event

    def _masked_field(self, name: object, value: Any) -> Any:
        if isinstance(name, str) and name.lower() in _SECRET_FIELDS and value is not None:
            return mask(value) if isinstance(value, str) and not _BEARER.search(value) else "…"
        return self._masked(value)

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._masked_text(value)
        if isinstance(value, bytes):
            return self._masked_text(value.decode("utf-8", "replace"))
        if isinstance(value, Mapping):
            return {name: self._masked_field(name, item) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._masked(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._masked_text(str(value))

    def _masked_text(self, text: str) -> str:
        if not self._is_suspect(text):
            return text
        text = _BEARER.sub(r"\1\2…", text)
        text = _KEY.sub(lambda match: mask(match.group()), text)
        for secret, masked in self._masks.items():
            text = text.replace(secret, masked)
        return text


def drop_prompts(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Remove the fields that hold users' text. A processor."""
    for name in PROMPT_FIELDS & event.keys():
        del event[name]
    return event


def configure_logging(
    *,
    level: str = "info",
    format: LogFormat = "auto",
    log_prompts: bool = False,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Route every logger of this process to one stream. A later call replaces an earlier one.

    level: the standard library's names in any case. format: `auto` is `console` on a terminal and `json`
    elsewhere. secrets: see SecretMasker. stream: stderr if None.
    Warnings of Python's `warnings` module become log lines too.
    """
    out = sys.stderr if stream is None else stream
    as_json = format == "json" or (format == "auto" and not out.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Before the masking, so that tracebacks are masked too; without local variables, which hold prompts.
        structlog.processors.format_exc_info,
    ]
    if not log_prompts:
        shared.append(drop_prompts)
    shared.append(SecretMasker(secrets))
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # `color_message` is uvicorn's second copy of its message.
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _without_color_message, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in (
        "uvicorn.error",
        "authlib",
        "httpx",
        "httpcore",
        "httpx2",
        "httpcore2",
        "alembic",
        "asyncio",
        "filelock",
        "urllib3",
        "mistral_common",
        "PIL",
    ):
        # Chatty at `info` and `debug` about what is no event of this server, or what it logs itself.
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        # Not cached on first use: a logger made at import would keep the configuration of before this call.
        cache_logger_on_first_use=False,
    )


def _without_color_message(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event.pop("color_message", None)
    return event
