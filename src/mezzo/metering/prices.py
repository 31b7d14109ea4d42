"""What tokens cost: the price that was valid at a moment, and the exact amount for a request's tokens.

Prices come from the catalog. Each one that is ever applied is written to the database and stays there: a catalog that
says something else under the same name is refused, so the past cannot change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.catalog.cards import Catalog, ServiceTier
from mezzo.store.database import Database, insert_into
from mezzo.store.tables import prices

NANO_PER_TOKEN = Decimal(1000)
"""Nano-units per token at a price of one unit per million tokens: 10^9 / 10^6."""


class PriceNotFound(Exception):
    """A model has no price at this moment, for this tier, in this currency."""


class PriceChanged(Exception):
    """The catalog has a price under the name of another one that was applied before."""


@dataclass(frozen=True, slots=True)
class Price:
    """A price under its own name, e.g. `mistral-medium-2505/USD/standard/2025-05-07T00:00:00Z`.

    input, cached_input, output   units of the currency per million tokens
    """

    id: str
    model_id: str
    currency: str
    service_tier: ServiceTier
    valid_from: datetime
    input: Decimal
    cached_input: Decimal
    output: Decimal


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a request costs, in nano-units, by kind of token. input: those that were not cached."""

    input: int = 0
    cached_input: int = 0
    output: int = 0

    @property
    def total(self) -> int:
        """The sum of the kinds, which no rounding comes after."""
        return self.input + self.cached_input + self.output


def rate(price: Price, *, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> Amounts:
    """Return what tokens cost. `cached_tokens` are a part of `prompt_tokens`.

    Each kind is an exact product, rounded half up to a whole nano-unit, here and nowhere else.
    Raises: ValueError for counts that cannot be.
    """
    if not 0 <= cached_tokens <= prompt_tokens or completion_tokens < 0:
        raise ValueError(
            f"{cached_tokens} of {prompt_tokens} prompt tokens cached, {completion_tokens} completed"
        )
    return Amounts(
        input=_amount(prompt_tokens - cached_tokens, price.input),
        cached_input=_amount(cached_tokens, price.cached_input),
        output=_amount(completion_tokens, price.output),
    )


def most(price: Price, *, prompt_tokens: int, completion_tokens: int) -> int:
    """Return the most that a request of at most so many tokens can cost, whatever of it is cached."""
    dearest_input = max(price.input, price.cached_input)
    return _amount(prompt_tokens, dearest_input) + _amount(completion_tokens, price.output)


class PriceBook:
    """The catalog's prices in one currency."""

    def __init__(self, catalog: Catalog, currency: str) -> None:
        self.currency = currency
        self._by_model: dict[tuple[str, ServiceTier], list[Price]] = {}
        for card in catalog:
            for entry in card.prices:
                if entry.currency == currency:
                    price = Price(
                        id=f"{card.id}/{currency}/{entry.service_tier}/{_text(entry.valid_from)}",
                        model_id=card.id,
                        currency=currency,
                        service_tier=entry.service_tier,
                        valid_from=entry.valid_from,
                        input=entry.input_per_million,
                        cached_input=entry.cached_input_per_million,
                        output=entry.output_per_million,
                    )
                    self._by_model.setdefault((card.id, entry.service_tier), []).append(price)
        for history in self._by_model.values():
            history.sort(key=lambda price: price.valid_from, reverse=True)

    def __iter__(self) -> Iterator[Price]:
        for history in self._by_model.values():
            yield from history

    def find(self, model_id: str, service_tier: ServiceTier, at: datetime) -> Price:
        """Return the price of a model that is valid at a moment. Raises: PriceNotFound."""
        for price in self._by_model.get((model_id, service_tier), ()):
            if price.valid_from <= at:
                return price
        raise PriceNotFound(f"{model_id} has no {service_tier} price in {self.currency} at {_text(at)}")


def write_prices(connection: Connection, database: Database, book: Iterable[Price]) -> None:
    """Add the prices that the database does not have yet.

    Raises: PriceChanged for one that it has with other amounts; nothing is added then.
    """
    known = {row.id: row for row in connection.execute(sa.select(prices))}
    for price in book:
        values = {
            "model_id": price.model_id,
            "currency": price.currency,
            "service_tier": price.service_tier,
            "valid_from": price.valid_from,
            "input_per_million": str(price.input),
            "cached_input_per_million": str(price.cached_input),
            "output_per_million": str(price.output),
        }
        row = known.get(price.id)
        if row is None:
            insert = insert_into(prices, database.dialect).values(id=price.id, **values)
            connection.execute(insert.on_conflict_do_nothing())
            continue
        old = tuple(
            Decimal(text)
            for text in (row.input_per_million, row.cached_input_per_million, row.output_per_million)
        )
        if old != (price.input, price.cached_input, price.output):
            raise PriceChanged(
                f"the price {price.id} was applied with other amounts; prices are superseded, never edited"
            )


def _amount(tokens: int, per_million: Decimal) -> int:
    return int((tokens * per_million * NANO_PER_TOKEN).to_integral_value(ROUND_HALF_UP))


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
