"""What `GET /models` tells of an upstream: its dialect, and the model's context and capabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mezzo.backends.upstream.wire import UNREADABLE, Card, decode_cards

Dialect = Literal["mistral", "openai"]


@dataclass(frozen=True, slots=True)
class UpstreamFacts:
    """What is known of an upstream; the defaults, where it does not say.

    dialect               whose fields it takes: Mistral's, as clients send them, or OpenAI's
    is_vllm               it is a vLLM, whose streams can count tokens in every chunk
    is_listed             the model is among those that it lists
    max_context_length    None where the list does not have it
    capabilities          names of the wire; None where the list does not have them
    """

    dialect: Dialect = "mistral"
    is_vllm: bool = False
    is_listed: bool = False
    max_context_length: int | None = None
    capabilities: frozenset[str] | None = None

    @property
    def counts_in_every_chunk(self) -> bool:
        """Whether every chunk can have the usage of its choice until then."""
        return self.is_vllm


def read_facts(body: bytes, model: str) -> UpstreamFacts:
    """Read the answer to `GET /models`; what is no such list tells nothing."""
    try:
        cards = decode_cards(body).data
    except UNREADABLE:
        return UpstreamFacts()
    card = next((card for card in cards if model in (card.id, *(card.aliases or ()))), None)
    return UpstreamFacts(
        dialect=_dialect(cards),
        is_vllm=any(card.owned_by == "vllm" for card in cards),
        is_listed=card is not None,
        max_context_length=(card.max_context_length or card.max_model_len) if card else None,
        capabilities=_capabilities(card) if card else None,
    )


def _dialect(cards: list[Card]) -> Dialect:
    """Tell by the cards: Mistral's have capabilities, all others that are known are OpenAI's."""
    return "openai" if cards and all(card.capabilities is None for card in cards) else "mistral"


def _capabilities(card: Card) -> frozenset[str] | None:
    if card.capabilities is None:
        return None
    return frozenset(name for name, has in card.capabilities.items() if has is True)
