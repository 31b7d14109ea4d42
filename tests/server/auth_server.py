"""A real server on a free loopback port with nothing but /auth/* on it, and a browser that keeps cookies."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware

from mezzo.accounts.audit import OPERATOR
from mezzo.accounts.bootstrap import prepare
from mezzo.accounts.invitations import invite
from mezzo.accounts.passwords import hash_password
from mezzo.accounts.users import User, create_user
from mezzo.server.errors import FaultMiddleware, add_error_handlers
from mezzo.server.exchange import ExchangeMiddleware
from mezzo.server.metrics import Metrics
from mezzo.server.routes.auth import auth_routes
from mezzo.server.run import listen, url_of
from mezzo.settings import Settings
from mezzo.store.database import Database
from mezzo.store.tables import audit_log

PASSWORD = "correct horse battery staple"
NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)


# Reading the machine's certificates takes longer than most tests.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class AuthServer:
    """A running server. `database` has an organisation and its default workspace."""

    def __init__(self, database: Database, **settings: Any) -> None:
        self.database = database
        self.clock = Clock()
        self._listener = listen("127.0.0.1", 0)
        self.url = url_of(self._listener)
        self.settings = Settings(**{"public_url": self.url, **settings})
        made = prepare(database, operator_key="mz-" + "k" * 40, secret="s" * 43, currency="USD", now=NOW)
        self.organization_id, self.workspace_id = made.organization_id, made.workspace_id
        app = FastAPI(
            middleware=[
                Middleware(ExchangeMiddleware, metrics=Metrics(CollectorRegistry())),
                Middleware(FaultMiddleware),
            ],
            openapi_url=None,
        )
        add_error_handlers(app)
        app.include_router(auth_routes(self.settings, database, self.clock, "s" * 43))
        self._server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
        self._thread = threading.Thread(target=self._run, name="auth server")

    def make_user(self, email: str, *, password: str | None = PASSWORD, **options: Any) -> User:
        password_hash = None if password is None else hash_password(password)
        with self.database.write() as connection:
            return create_user(
                connection,
                organization_id=self.organization_id,
                email=email,
                first_name="Ada",
                last_name="Lovelace",
                password_hash=password_hash,
                actor=OPERATOR,
                now=self.clock(),
                **options,
            )

    def invite(self, email: str, **options: Any) -> str:
        """Invite somebody and return the secret of the link."""
        with self.database.write() as connection:
            _, secret = invite(
                connection,
                organization_id=self.organization_id,
                email=email,
                actor=OPERATOR,
                now=self.clock(),
                **options,
            )
        return secret

    def browser(self) -> httpx.Client:
        """Return a client that keeps cookies, follows no redirect, and must be closed."""
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, verify=NO_TLS)

    def events(self) -> list[str]:
        """Return the names in the audit log since the first start."""
        with self.database.read() as connection:
            names = list(connection.scalars(sa.select(audit_log.c.event_type).order_by(audit_log.c.id)))
        return names[3:]

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            self._thread.join(0.005)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._listener]))


@contextmanager
def auth_server(database: Database, **settings: Any) -> Iterator[AuthServer]:
    server = AuthServer(database, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
