"""What is settled when a chat request is admitted, and stands in every part of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from mezzo.catalog.resolve import Resolution
from mezzo.metering.prices import Price
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.fim import FimCompletionRequest

DEPRECATION_TIMESTAMP_HEADER = "x-model-deprecation-timestamp"
SERVED_BY_HEADER = "x-mezzo-served-by"


@dataclass(frozen=True, slots=True)
class ChatTerms:
    """The settled facts of one request.

    id, created, model   as on the wire; `model` is the name that was sent
    model_id             the card whose weights answer
    prefix               text that every choice begins with
    price                what its tokens cost; its tier is the one that serves the request
    stream_tool_calls    a stream shows tool calls as they are written, not each as a whole at the end
    headers              about the model, on every successful answer
    json_headers         on a successful answer that is one JSON object: the SDK's hook for the header reads
                         the answer's body, which breaks streams
    """

    id: str
    created: int
    model: str
    model_id: str
    num_choices: int
    temperature: float
    prefix: str
    price: Price
    stream_tool_calls: bool
    headers: dict[str, str]
    json_headers: dict[str, str]


def settle_terms(
    request: ChatCompletionRequest | FimCompletionRequest,
    resolution: Resolution,
    *,
    request_id: str,
    price: Price,
    now: datetime,
) -> ChatTerms:
    """Settle the facts of a request whose messages and features were checked."""
    served_by = resolution.served_by
    chat = request if isinstance(request, ChatCompletionRequest) else None
    return ChatTerms(
        id=request_id,
        created=int(now.timestamp()),
        model=resolution.requested,
        model_id=served_by.id,
        num_choices=chat.num_choices if chat else 1,
        temperature=served_by.default_temperature if request.temperature is None else request.temperature,
        prefix=chat.continued_text if chat else "",
        price=price,
        stream_tool_calls=bool(chat and chat.stream_options and chat.stream_options.stream_tool_calls),
        headers=_model_headers(resolution),
        json_headers=_json_headers(resolution),
    )


def _model_headers(resolution: Resolution) -> dict[str, str]:
    """Say when a model was deprecated (RFC 9745), when it retires (RFC 8594), and who answers instead."""
    card, served_by = resolution.card, resolution.served_by
    headers = {}
    if resolution.deprecation_timestamp is not None and card.deprecated_on is not None:
        headers["deprecation"] = f"@{int(card.deprecated_on.timestamp())}"
        headers["sunset"] = format_datetime(resolution.deprecation_timestamp.astimezone(UTC), usegmt=True)
        headers["link"] = f'</v1/models/{card.replacement}>; rel="successor-version"'
    if served_by.id != card.id:
        headers[SERVED_BY_HEADER] = served_by.id
    return headers


def _json_headers(resolution: Resolution) -> dict[str, str]:
    if resolution.deprecation_timestamp is None:
        return {}
    moment = resolution.deprecation_timestamp.astimezone(UTC)
    return {DEPRECATION_TIMESTAMP_HEADER: moment.isoformat().replace("+00:00", "Z")}
