"""The HTTP server: uvicorn, taught to drain before it stops."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import structlog
import uvicorn

from mezzo.server.app import MezzoApp
from mezzo.server.http_protocol import ApiProtocol
from mezzo.settings import Settings

# What a request may take to send its last chunks after it was broken off; then its connection is cut.
_LAST_WORDS_S = 3

_log = structlog.get_logger("mezzo.server")


class ApiServer(uvicorn.Server):
    """Serves an application until it is told to stop, then lets running requests finish.

    Told by `should_exit`: no connection and no request is accepted any more; requests that run have
    `shutdown_grace_s` to finish; those that have not are ended as failures, which their clients are told.
    Signals are for whoever runs it to catch and to pass to `handle_exit`; a second SIGINT ends at once.
    """

    def __init__(self, app: MezzoApp, settings: Settings) -> None:
        self._gateway = app.gateway
        self._retries = app.retries
        self._grace_s = settings.shutdown_grace_s
        config = uvicorn.Config(
            app,
            loop="none",  # whoever runs it has chosen
            http=ApiProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            backlog=2048,
            timeout_graceful_shutdown=math.ceil(self._grace_s) + _LAST_WORDS_S,
        )
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop as uvicorn does."""
        self._gateway.drain()
        _log.info("shutting down", running=self._gateway.num_running, grace_s=self._grace_s)
        deadline = asyncio.get_running_loop().call_later(self._grace_s, self._gateway.break_off_running)
        try:
            await super().shutdown(sockets)
            await self._retries.finish()
        finally:
            deadline.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: a server may be stopped before it serves, so uvicorn would be late."""
        yield
