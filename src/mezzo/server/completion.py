"""The answer of a chat request as one JSON object."""

from __future__ import annotations

from mezzo.backends.base import BackendFailed, ChoiceFinished
from mezzo.metering.idempotency import KeptAnswer
from mezzo.protocol.errors import InternalError, ServiceUnavailable
from mezzo.protocol.response import ChatCompletionResponse, Choice, FinishReason
from mezzo.server.message import MessageBuilder
from mezzo.server.running import NotRecorded, RunningChat

MEDIA_TYPE = "application/json"


async def complete(chat: RunningChat) -> bytes:
    """Read a chat to its end, close it, and return the whole answer once it is in the books.

    Raises: ServiceUnavailable if the backend broke off, or the books cannot be written; InternalError if no choice came
    to a proper end.
    """
    try:
        messages, reasons = await _read(chat)
        is_answer = any(reason != "error" for reason in reasons.values())
        body = _answer(chat, messages, reasons).to_json()
        await chat.aclose(_kept(chat, body) if is_answer and chat.keeps_answer else None)
        await chat.settled()
    except (BackendFailed, NotRecorded):
        raise ServiceUnavailable from None
    finally:
        await chat.aclose()
    if not is_answer:
        raise InternalError
    return body


async def _read(chat: RunningChat) -> tuple[list[MessageBuilder], dict[int, FinishReason]]:
    messages = [MessageBuilder(chat.terms.prefix) for _ in range(chat.terms.num_choices)]
    reasons: dict[int, FinishReason] = {}
    while len(reasons) < chat.terms.num_choices:
        for event in await chat.next_events():
            messages[event.index].add(event.pieces)
            if isinstance(event, ChoiceFinished):
                reasons[event.index] = event.reason
    return messages, reasons


def _answer(
    chat: RunningChat, messages: list[MessageBuilder], reasons: dict[int, FinishReason]
) -> ChatCompletionResponse:
    return ChatCompletionResponse(
        id=chat.terms.id,
        created=chat.terms.created,
        model=chat.terms.model,
        choices=[
            Choice(index=index, finish_reason=reasons[index], message=builder.message(reasons[index]))
            for index, builder in enumerate(messages)
        ],
        usage=chat.usage,
    )


def _kept(chat: RunningChat, body: bytes) -> KeptAnswer:
    headers = {"content-type": MEDIA_TYPE} | chat.terms.headers | chat.terms.json_headers
    return KeptAnswer(200, headers, body)
