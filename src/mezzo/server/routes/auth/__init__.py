"""/auth/*: people sign in and out, with a password or at an identity provider. A cookie knows them from then on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fastapi import APIRouter

from mezzo.server.client_address import ClientAddresses
from mezzo.server.cookies import Cookies
from mezzo.server.provider import Provider
from mezzo.server.routes.auth.browser import Browser
from mezzo.server.routes.auth.passwords import password_routes
from mezzo.server.routes.auth.single_sign_on import CALLBACK_PATH, single_sign_on_routes
from mezzo.server.sign_in import SignIn
from mezzo.settings import Settings
from mezzo.store.database import Database

if TYPE_CHECKING:
    from mezzo.server.oidc import SignOn


def auth_routes(
    settings: Settings, database: Database, clock: Callable[[], datetime], secret_key: str
) -> APIRouter:
    """Return the routes of sessions. They need no middleware of their own.

    secret_key: the installation's, `settings.resolve_secret_key()`.
    """
    lifetime = timedelta(hours=settings.session_hours)
    sign_in = SignIn(database, clock, lifetime=lifetime, allowed_domains=settings.oidc_allowed_domains)
    cookies = Cookies(is_https=(settings.public_url or "").startswith("https:"), secret_key=secret_key)
    addresses = ClientAddresses(settings.trusted_proxies)
    browser = Browser(sign_in, cookies, addresses, lifetime=lifetime, public_url=settings.public_url)
    router = APIRouter(tags=["sign-in"])
    router.include_router(password_routes(sign_in, browser))
    router.include_router(single_sign_on_routes(_sign_on(settings), sign_in, browser, cookies, clock))
    return router


def _sign_on(settings: Settings) -> SignOn | None:
    if settings.oidc_issuer is None:
        return None
    from mezzo.server.oidc import SignOn  # noqa: PLC0415  Authlib, where there is a provider

    # The settings are checked together: with an issuer there are these too.
    assert settings.oidc_client_id is not None
    assert settings.public_url is not None
    secret = settings.oidc_client_secret
    return SignOn(
        Provider(
            issuer=settings.oidc_issuer,
            client_id=settings.oidc_client_id,
            client_secret=None if secret is None else secret.get_secret_value(),
            redirect_uri=settings.public_url + CALLBACK_PATH,
        )
    )
