"""Which URLs of files an upstream is handed: it fetches them itself, from where it stands."""

from __future__ import annotations

from collections.abc import Iterator

from mezzo.prompt.content import where_is
from mezzo.prompt.media.addresses import PublicAddresses
from mezzo.prompt.media.fetch import FETCHING_IS_OFF, NOT_FETCHED
from mezzo.prompt.media.urls import InvalidUrl, Target, is_data_uri, parse_target
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.content import DocumentURLChunk, ImageURL, ImageURLChunk
from mezzo.protocol.errors import InvalidFile

# Names that nobody outside has, so that only an upstream's own network can know them.
_PRIVATE_DOMAINS = (".localhost", ".internal", ".local", ".lan", ".home.arpa")


class UrlRules:
    """Refuses the URLs that are plainly meant for the inside of the upstream's network.

    What a public name resolves to where the upstream is cannot be known here: that is for the upstream, or its
    firewall, to see to.
    """

    def __init__(self, policy: PublicAddresses, *, fetching: bool) -> None:
        """fetching: whether files may be given by URL at all."""
        self._policy = policy
        self._fetching = fetching

    def check(self, request: ChatCompletionRequest) -> None:
        """Raises: InvalidFile naming the first chunk whose URL may not be passed on."""
        for where, url in _urls(request):
            if is_data_uri(url):
                continue
            if not self._fetching:
                raise InvalidFile(f"{where}: {FETCHING_IS_OFF}", param="messages")
            try:
                target = parse_target(url)
            except InvalidUrl as error:
                raise InvalidFile(f"{where}: {error}", param="messages") from error
            if not self._permits(target):
                raise InvalidFile(f"{where}: {NOT_FETCHED}", param="messages")

    def _permits(self, target: Target) -> bool:
        policy = self._policy
        if target.address is not None:
            return policy.permits(target.host, target.address, target.port)
        for allowed in policy.allowed_hosts:
            ports = policy.ports if allowed.port is None else {allowed.port}
            if target.host == allowed.name and target.port in ports:
                return True
        return target.port in policy.ports and _is_public_name(target.host)


def _is_public_name(host: str) -> bool:
    return "." in host and not host.endswith(_PRIVATE_DOMAINS)


def _urls(request: ChatCompletionRequest) -> Iterator[tuple[str, str]]:
    for position, message in enumerate(request.messages):
        if message.content is None or isinstance(message.content, str):
            continue
        for index, chunk in enumerate(message.content):
            if isinstance(chunk, DocumentURLChunk):
                yield where_is(position, index), chunk.document_url
            elif isinstance(chunk, ImageURLChunk):
                image = chunk.image_url
                yield where_is(position, index), image.url if isinstance(image, ImageURL) else image
