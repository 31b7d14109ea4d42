"""From an admitted request to an HTTP response: one JSON object, or a stream of events."""

from __future__ import annotations

from starlette.responses import Response

from mezzo.backends.base import BackendFailed
from mezzo.protocol.errors import ServiceUnavailable
from mezzo.server.completion import complete
from mezzo.server.running import RunningChat
from mezzo.server.sse import EventStream, no_padding, random_padding
from mezzo.settings import Settings

# A failure within this time is told by its status; after it, inside the stream.
FIRST_EVENT_TIMEOUT_S = 5.0


async def answer(chat: RunningChat, settings: Settings, *, stream: bool) -> Response:
    """Answer an admitted request, and close it. Raises: ApiError."""
    if stream:
        return await _open_stream(chat, settings)
    completion = await complete(chat)
    return Response(completion.to_json(), media_type="application/json", headers=chat.terms.json_headers)


async def _open_stream(chat: RunningChat, settings: Settings) -> Response:
    """Wait a moment for the first event, so that an early failure can still be a status."""
    try:
        await chat.wait_for_news(FIRST_EVENT_TIMEOUT_S)
        chat.raise_failure()
    except BackendFailed:
        await chat.aclose()
        raise ServiceUnavailable from None
    except BaseException:
        await chat.aclose()
        raise
    padding = random_padding if settings.stream_padding else no_padding
    return EventStream(chat, padding=padding, keep_alive_s=settings.keep_alive_s)
