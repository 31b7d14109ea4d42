"""What a server is made of, assembled by `run.serve` and by tests, and handed to everything that needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from mezzo.accounts.access import AccessCache, RateLimits
from mezzo.accounts.bootstrap import Installation, prepare
from mezzo.backends.router import Router
from mezzo.catalog.cards import Catalog, load_catalog
from mezzo.metering.books import Books
from mezzo.metering.idempotency import AnswerSeal
from mezzo.metering.limits import RateLimiter, make_limiter
from mezzo.metering.prices import PriceBook, write_prices
from mezzo.prompt.media.addresses import PublicAddresses
from mezzo.prompt.media.attachments import AttachmentLimits, AttachmentLoader
from mezzo.prompt.media.documents import DocumentLimits
from mezzo.prompt.media.fetch import Fetcher
from mezzo.prompt.media.image_headers import ImageLimits
from mezzo.server.metrics import BooksCollector, Metrics, make_metrics
from mezzo.server.queues import Queues
from mezzo.settings import Settings
from mezzo.store.database import Database

_log = structlog.get_logger("mezzo.server")


@dataclass(frozen=True)
class Services:
    """The collaborators of one server.

    secret  the installation's, from which keys for cookies and kept answers are derived
    clock   the time of day, with a time zone: lifecycles and `created` depend on it, durations do not
    """

    catalog: Catalog
    prices: PriceBook
    router: Router
    queues: Queues
    database: Database
    installation: Installation
    access: AccessCache
    secret: str = field(repr=False)
    seal: AnswerSeal
    books: Books
    limiter: RateLimiter
    metrics: Metrics
    attachments: AttachmentLoader
    clock: Callable[[], datetime]

    async def start(self) -> None:
        """Open the books. The backends are started by whoever made them."""
        await self.books.start()

    async def stop(self) -> None:
        """Close the books once everything is written, and every connection. Safe to call twice."""
        await self.books.stop()
        await self.limiter.aclose()
        await asyncio.to_thread(self.database.dispose)


def make_services(
    settings: Settings, router: Router, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Services:
    """Return the services that the settings ask for, on a database that is up to date.

    Raises: mezzo.kit.secrets.MachineKeyError, OSError for this machine's keys and files; DatabaseUnavailable;
    PriceNotFound, PriceChanged for prices that cannot be applied.
    """
    catalog = load_catalog()
    prices = PriceBook(catalog, settings.currency)
    for model_id in router.by_model_id:
        prices.find(model_id, "standard", clock())
    secret = settings.resolve_secret_key()
    database = Database(settings.resolve_database_url())
    installation = prepare(
        database,
        operator_key=settings.resolve_api_key(),
        secret=secret,
        currency=settings.currency,
        now=clock(),
    )
    if not installation.is_key_good:
        _log.warning("the API key of the settings was revoked and is refused")
    with database.write() as connection:
        write_prices(connection, database, prices)
    queues = Queues(max_waiting=settings.max_queue)
    seal = AnswerSeal(secret)
    books = Books(database, seal=seal, clock=clock, counts=router.engine_counts)
    limiter = make_limiter(settings)
    metrics = make_metrics(router)
    metrics.registry.register(BooksCollector(router, queues, books, limiter))
    return Services(
        catalog=catalog,
        prices=prices,
        router=router,
        queues=queues,
        database=database,
        installation=installation,
        access=AccessCache(database, clock),
        secret=secret,
        seal=seal,
        books=books,
        limiter=limiter,
        metrics=metrics,
        attachments=make_attachment_loader(settings),
        clock=clock,
    )


def default_limits(settings: Settings) -> RateLimits:
    """Return the limits of workspaces that have none of their own."""
    return RateLimits(settings.requests_per_minute, settings.tokens_per_minute, settings.tokens_per_month)


def make_attachment_loader(settings: Settings) -> AttachmentLoader:
    """Return what gets the images and documents of requests, under the limits of the settings."""
    fetcher = Fetcher(
        enabled=settings.fetch_urls,
        policy=PublicAddresses(allowed_hosts=settings.fetch_allowed_hosts),
        timeout_s=settings.fetch_timeout_s,
    )
    limits = AttachmentLimits(
        max_images=settings.max_images,
        images=ImageLimits(max_bytes=settings.max_image_bytes),
        documents=DocumentLimits(
            max_bytes=settings.max_document_bytes,
            max_pages=settings.max_document_pages,
            max_page_images=settings.max_document_images,
            timeout_s=settings.document_timeout_s,
        ),
    )
    return AttachmentLoader(limits, fetcher)
