"""What a server is made of, assembled by `run.serve` and by tests, and handed to everything that needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mezzo.backends.router import Router
from mezzo.catalog.cards import Catalog, load_catalog
from mezzo.metering.limits import RateLimiter
from mezzo.prompt.media.addresses import PublicAddresses
from mezzo.prompt.media.attachments import AttachmentLimits, AttachmentLoader
from mezzo.prompt.media.documents import DocumentLimits
from mezzo.prompt.media.fetch import Fetcher
from mezzo.prompt.media.image_headers import ImageLimits
from mezzo.server.auth import KeyVerifier, SingleKeyVerifier
from mezzo.server.metrics import Metrics, make_metrics
from mezzo.settings import Settings


@dataclass(frozen=True)
class Services:
    """The collaborators of one server.

    clock   the time of day, with a time zone: lifecycles and `created` depend on it, durations do not
    """

    catalog: Catalog
    router: Router
    verifier: KeyVerifier
    limiter: RateLimiter
    metrics: Metrics
    attachments: AttachmentLoader
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


def make_services(settings: Settings, router: Router) -> Services:
    """Return the services that the settings ask for.

    Raises: mezzo.kit.secrets.MachineKeyError, OSError for this machine's API key.
    """
    return Services(
        catalog=load_catalog(),
        router=router,
        verifier=SingleKeyVerifier(settings.resolve_api_key()),
        limiter=RateLimiter(
            requests_per_minute=settings.requests_per_minute, tokens_per_minute=settings.tokens_per_minute
        ),
        metrics=make_metrics(router),
        attachments=make_attachment_loader(settings),
    )


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
