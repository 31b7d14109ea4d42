"""What a server is made of, assembled by `run.serve` and by tests, and handed to everything that needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mezzo.accounts.access import AccessCache
from mezzo.accounts.bootstrap import Installation, prepare
from mezzo.backends.base import Backend
from mezzo.backends.router import Router
from mezzo.catalog.cards import Catalog, load_catalog
from mezzo.metering.books import Books
from mezzo.metering.fair_queue import FairQueue
from mezzo.metering.limits import RateLimiter, make_limiter
from mezzo.metering.prices import PriceBook, write_prices
from mezzo.prompt.media.addresses import PublicAddresses
from mezzo.prompt.media.attachments import AttachmentLimits, AttachmentLoader
from mezzo.prompt.media.documents import DocumentLimits
from mezzo.prompt.media.fetch import Fetcher
from mezzo.prompt.media.image_headers import ImageLimits
from mezzo.server.metrics import Metrics, make_metrics
from mezzo.settings import Settings
from mezzo.store.database import Database


@dataclass(frozen=True)
class Services:
    """The collaborators of one server.

    clock   the time of day, with a time zone: lifecycles and `created` depend on it, durations do not
    """

    catalog: Catalog
    prices: PriceBook
    router: Router
    queues: Queues
    database: Database
    installation: Installation
    access: AccessCache
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
    with database.write() as connection:
        write_prices(connection, database, prices)
    queues = Queues(max_waiting=settings.max_queue)
    books = Books(database, secret=secret, clock=clock, counts=router.engine_counts)
    limiter = make_limiter(settings)
    return Services(
        catalog=catalog,
        prices=prices,
        router=router,
        queues=queues,
        database=database,
        installation=installation,
        access=AccessCache(database, clock),
        books=books,
        limiter=limiter,
        metrics=make_metrics(router),
        attachments=make_attachment_loader(settings),
        clock=clock,
    )


class Queues:
    """The queue of each backend, which all its requests wait in for a place."""

    def __init__(self, *, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._by_backend: dict[int, FairQueue] = {}

    def of(self, backend: Backend) -> FairQueue:
        """Return the queue of a backend."""
        queue = self._by_backend.get(id(backend))
        if queue is None:
            # A few are sent ahead of their place, so that the next one is at hand when a place gets free.
            ahead = min(self._max_waiting, max(1, backend.max_num_seqs // 8))
            queue = FairQueue(backend.max_num_seqs + ahead, max_waiting=self._max_waiting - ahead)
            self._by_backend[id(backend)] = queue
        return queue


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
