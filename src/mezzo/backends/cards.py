"""The cards of GET /v1/models: what the catalog says of a model, cut down to what its weights hold."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from mezzo.backends.base import WeightsInfo
from mezzo.catalog.cards import Catalog
from mezzo.catalog.resolve import ModelRetired, Resolution, UnknownModel
from mezzo.protocol.models import Capabilities, ModelCard


def model_cards(
    catalog: Catalog, weights: Mapping[str, WeightsInfo], *, strict: bool, now: datetime
) -> list[ModelCard]:
    """Return one card for every name that a request may use.

    weights: what serves each card, by card id. strict: retired names are refused, so they are not listed.
    """
    cards = []
    for entry in catalog:
        for name in entry.names:
            try:
                cards.append(model_card(catalog, name, weights, strict=strict, now=now))
            except (UnknownModel, ModelRetired):
                continue
    return cards


def model_card(
    catalog: Catalog, name: str, weights: Mapping[str, WeightsInfo], *, strict: bool, now: datetime
) -> ModelCard:
    """Return the card of one name. Arguments as in `model_cards`. Raises: UnknownModel, ModelRetired."""
    resolution = catalog.resolve(name, served=weights, strict=strict, now=now)
    return _card(resolution, weights[resolution.served_by.id], now)


def served_capabilities(resolution: Resolution, weights: WeightsInfo) -> frozenset[str]:
    """Return what a request to this name may use: only what the card says and the weights behind it hold.

    That weights fill in the middle, which no card of the family promises, is the operator's word.
    """
    promised = resolution.card.capabilities & resolution.served_by.capabilities
    return (promised | {"completion_fim"}) & weights.capabilities


def _card(resolution: Resolution, weights: WeightsInfo, now: datetime) -> ModelCard:
    asked, served_by = resolution.card, resolution.served_by
    is_deprecated = resolution.deprecation_timestamp is not None
    behind = f"{weights.name}, {weights.description}"
    if served_by.id != asked.id:
        behind = f"{served_by.id} ({behind})"
    return ModelCard(
        id=resolution.requested,
        created=int(now.timestamp()),
        name=asked.id,
        description=f"{asked.description} Answered here by {behind}.",
        max_context_length=min(asked.context, served_by.context, weights.max_context_length),
        aliases=[name for name in asked.names if name != resolution.requested],
        deprecation=resolution.deprecation_timestamp,
        deprecation_replacement_model=asked.replacement if is_deprecated else None,
        default_model_temperature=served_by.default_temperature,
        capabilities=Capabilities(**dict.fromkeys(served_capabilities(resolution, weights), True)),
    )
