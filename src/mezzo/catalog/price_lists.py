"""What other providers' models cost by their public price lists, read from `price_lists.toml`."""

from __future__ import annotations

import tomllib
from datetime import date
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mezzo.catalog.cards import Amount, CatalogInvalid

CURRENCY = "USD"
"""That of every price list."""


class ListPrice(BaseModel):
    """A model's list prices per million tokens.

    source, as_of              where they stood, and on which day
    cached_input_per_million   None where the provider has no price of its own for cached input
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    provider: str = Field(min_length=1)
    source: str = Field(min_length=1)
    as_of: date
    input_per_million: Amount
    cached_input_per_million: Amount | None = None
    output_per_million: Amount


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    price: tuple[ListPrice, ...]


def parse_price_lists(text: str) -> tuple[ListPrice, ...]:
    """Read price lists from TOML: one `[[price]]` per model. Raises: CatalogInvalid saying what and where."""
    try:
        prices = _File.model_validate(tomllib.loads(text)).price
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise CatalogInvalid(str(error)) from None
    names = [price.model for price in prices]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CatalogInvalid(f"more than one price of {', '.join(twice)}")
    return prices


def load_price_lists() -> tuple[ListPrice, ...]:
    """Read the price lists that are part of mezzo."""
    return parse_price_lists(files("mezzo.catalog").joinpath("price_lists.toml").read_text(encoding="utf-8"))
