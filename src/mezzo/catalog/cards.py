"""Model cards as data: what each model of the family is, was and costs, read from `models.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from mezzo.catalog.resolve import Resolution, resolve

Lifecycle = Literal["active", "deprecated", "retired"]
Modality = Literal["text", "image", "reasoning"]
ServiceTier = Literal["standard", "priority", "batch"]
Feature = Literal[
    "chat-completions",
    "function-calling",
    "structured-outputs",
    "document-qna",
    "prefix",
    "predicted-outputs",
    "batching",
    "agents-conversations",
    "connectors",
]


class CatalogInvalid(ValueError):
    """A catalog that contradicts itself or holds something unknown."""


def _require_text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("write amounts as text, so that they stay exact decimals")  # noqa: TRY004
    return value


Amount = Annotated[Decimal, Field(ge=0), BeforeValidator(_require_text)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Price(_Entry):
    """List prices per million tokens from a moment on; superseded by a later entry, never edited."""

    valid_from: AwareDatetime
    currency: Literal["USD", "EUR"]
    service_tier: ServiceTier
    input_per_million: Amount
    cached_input_per_million: Amount
    output_per_million: Amount


class Card(_Entry):
    """One model.

    context       tokens of prompt and completion together
    capabilities  the wire's names, as in the `capabilities` object of GET /v1/models
    features      the names on the reference's model pages
    retires_at    from then on the name is retired; set together with deprecated_on and replacement
    """

    id: str = Field(min_length=1)
    aliases: tuple[str, ...] = ()
    description: str = Field(min_length=1)
    released: AwareDatetime
    deprecated_on: AwareDatetime | None = None
    retires_at: AwareDatetime | None = None
    replacement: str | None = None
    context: int = Field(gt=0, strict=True)
    input_modalities: tuple[Modality, ...]
    output_modalities: tuple[Modality, ...]
    default_temperature: float = Field(ge=0, le=1.5, strict=True)
    capabilities: frozenset[str]
    features: frozenset[Feature] = frozenset()
    prices: tuple[Price, ...]

    @model_validator(mode="after")
    def _check_lifecycle(self) -> Card:
        lifecycle = (self.deprecated_on, self.retires_at, self.replacement)
        if any(part is None for part in lifecycle) and any(part is not None for part in lifecycle):
            raise ValueError("deprecated_on, retires_at and replacement belong together")
        if (
            self.deprecated_on is not None
            and self.retires_at is not None
            and not self.released < self.deprecated_on < self.retires_at
        ):
            raise ValueError("released, deprecated_on and retires_at must follow each other")
        return self

    @model_validator(mode="after")
    def _check_prices(self) -> Card:
        validities = [(price.currency, price.service_tier, price.valid_from) for price in self.prices]
        if len(set(validities)) < len(validities):
            raise ValueError("two prices of one currency and tier are valid from the same moment")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of this model, its own first."""
        return (self.id, *self.aliases)

    def lifecycle(self, now: datetime) -> Lifecycle:
        """Return where the model stands at `now`, which has a time zone."""
        if self.retires_at is not None and now >= self.retires_at:
            return "retired"
        if self.deprecated_on is not None and now >= self.deprecated_on:
            return "deprecated"
        return "active"


class Catalog:
    """All cards, found by any of their names."""

    def __init__(self, cards: Iterable[Card]) -> None:
        """Raises: CatalogInvalid for a name given twice, or a replacement that is missing or leads back."""
        self.cards = tuple(cards)
        self._by_name: dict[str, Card] = {}
        for card in self.cards:
            for name in card.names:
                if name in self._by_name:
                    raise CatalogInvalid(f"{name} is a name of both {self._by_name[name].id} and {card.id}")
                self._by_name[name] = card
        ids = {card.id for card in self.cards}
        for card in self.cards:
            if card.replacement is not None and card.replacement not in ids:
                raise CatalogInvalid(f"{card.id} is replaced by {card.replacement}, which is no model here")
        for card in self.cards:
            _check_chain(card, self._by_name)

    def __iter__(self) -> Iterator[Card]:
        return iter(self.cards)

    def find(self, name: str) -> Card | None:
        """Return the card that has `name` as its id or alias; names are case sensitive."""
        return self._by_name.get(name)

    def resolve(self, name: str, *, served: Collection[str], strict: bool, now: datetime) -> Resolution:
        """Find the card that `name` asks for and the card whose weights answer.

        served: ids of the cards that have weights. strict: refuse retired names.
        Raises: UnknownModel, ModelRetired.
        """
        return resolve(self._by_name, name, served=served, strict=strict, now=now)


def _check_chain(card: Card, by_name: Mapping[str, Card]) -> None:
    seen = {card.id}
    replacement = card.replacement
    while replacement is not None:
        if replacement in seen:
            raise CatalogInvalid(f"the replacements of {card.id} lead back to it")
        seen.add(replacement)
        replacement = by_name[replacement].replacement


class _File(_Entry):
    model: tuple[Card, ...]


def parse_catalog(text: str) -> Catalog:
    """Read a catalog from TOML: one `[[model]]` per card. Raises: CatalogInvalid saying what and where."""
    try:
        return Catalog(_File.model_validate(tomllib.loads(text)).model)
    except tomllib.TOMLDecodeError as error:
        raise CatalogInvalid(f"not TOML: {error}") from None
    except ValidationError as error:
        raise CatalogInvalid(str(error)) from None


def load_catalog() -> Catalog:
    """Read the catalog that is part of mezzo."""
    return parse_catalog(files("mezzo.catalog").joinpath("models.toml").read_text(encoding="utf-8"))
