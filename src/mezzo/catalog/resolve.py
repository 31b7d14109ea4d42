"""From the name in a request to the card it means and the card whose weights answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mezzo.catalog.cards import Card


class UnknownModel(Exception):
    """A name that no card has, or whose card nothing here can answer for."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown model: {name}")
        self.name = name


class ModelRetired(Exception):
    """A name that is past its retirement, in strict mode; `replacement` is the id to use instead."""

    def __init__(self, name: str, replacement: str) -> None:
        super().__init__(f"model {name} is retired; use {replacement}")
        self.name = name
        self.replacement = replacement


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a name means at one moment.

    requested               the name as it was sent; answers echo it
    card                    the model that was asked for
    served_by               the model whose weights answer: `card`, or the next in its chain of replacements
    deprecation_timestamp   when `card` retires or retired; None while it is not deprecated
    """

    requested: str
    card: Card
    served_by: Card
    deprecation_timestamp: datetime | None


def resolve(
    by_name: Mapping[str, Card], name: str, *, served: Collection[str], strict: bool, now: datetime
) -> Resolution:
    """See `Catalog.resolve`. `by_name` has an entry for every id and alias, and chains that end."""
    card = by_name.get(name)
    if card is None:
        raise UnknownModel(name)
    lifecycle = card.lifecycle(now)
    if strict and lifecycle == "retired" and card.replacement is not None:
        raise ModelRetired(name, card.replacement)
    served_by = card
    while served_by.id not in served:
        if served_by.replacement is None:
            raise UnknownModel(name)
        served_by = by_name[served_by.replacement]
    return Resolution(
        requested=name,
        card=card,
        served_by=served_by,
        deprecation_timestamp=None if lifecycle == "active" else card.retires_at,
    )
