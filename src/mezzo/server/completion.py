"""The answer of a chat request as one JSON object."""

from __future__ import annotations

from mezzo.backends.base import BackendFailed, ChoiceFinished
from mezzo.protocol.errors import InternalError, ServiceUnavailable
from mezzo.protocol.response import ChatCompletionResponse, Choice, FinishReason
from mezzo.server.message import MessageBuilder
from mezzo.server.running import RunningChat


async def complete(chat: RunningChat) -> ChatCompletionResponse:
    """Read a chat to its end, close it, and return the whole answer.

    Raises: ServiceUnavailable if the backend broke off; InternalError if no choice came to a proper end.
    """
    messages = [MessageBuilder(chat.terms.prefix) for _ in range(chat.terms.num_choices)]
    reasons: dict[int, FinishReason] = {}
    try:
        while len(reasons) < chat.terms.num_choices:
            for event in await chat.next_events():
                messages[event.index].add(event.pieces)
                if isinstance(event, ChoiceFinished):
                    reasons[event.index] = event.reason
    except BackendFailed:
        raise ServiceUnavailable from None
    finally:
        await chat.aclose()
    if all(reason == "error" for reason in reasons.values()):
        raise InternalError
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
