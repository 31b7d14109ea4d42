"""What the same tokens cost elsewhere: list prices of other models beside ours, and how many times as much that is.

The same tokens: how many tokens a text makes differs between models, and no price list tells that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction

from mezzo.catalog.price_lists import ListPrice
from mezzo.metering.prices import Price
from mezzo.metering.usage import TOKEN_KINDS, TokenKind, UsageSum

_RATIO_DECIMALS = Decimal("0.0001")
_MILLION = 10**6
_NANO = 10**9
# More digits than any sum of tokens times any price has, so that every product is exact.
_PRECISION = 60


@dataclass(frozen=True, slots=True)
class Offer:
    """What a model costs per million tokens. source, as_of: where that is known from."""

    model: str
    provider: str
    source: str
    as_of: date
    per_million: Mapping[TokenKind, Decimal]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the tokens cost here, in units of the currency, and what that is per million.

    per_million lacks the kinds of which there are no tokens, where the price is told from what was billed.
    """

    name: str
    amounts: Mapping[TokenKind, Decimal]
    per_million: Mapping[TokenKind, Fraction]

    @property
    def total(self) -> Decimal:
        """What they cost together."""
        return _exact_sum(self.amounts.values())


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the tokens cost at one offer.

    ratio       total cost there, over total cost here; None where they cost nothing here
    by_kind     the same for each kind of token, where that has a price here. Whatever the mix of tokens, the ratio
                lies between the smallest of them and the largest
    """

    offer: Offer
    amounts: Mapping[TokenKind, Decimal]
    ratio: Fraction | None
    by_kind: Mapping[TokenKind, Fraction]

    @property
    def total(self) -> Decimal:
        """What they cost together, in units of the currency."""
        return _exact_sum(self.amounts.values())


def offer_of_list_price(price: ListPrice) -> Offer:
    """Return a list price as an offer: cached input costs what other input costs where it has no price."""
    cached = price.cached_input_per_million
    return Offer(
        model=price.model,
        provider=price.provider,
        source=price.source,
        as_of=price.as_of,
        per_million={
            "input": price.input_per_million,
            "cached_input": price.input_per_million if cached is None else cached,
            "output": price.output_per_million,
        },
    )


def offer_of_catalog_price(price: Price) -> Offer:
    """Return a price of our catalog as an offer."""
    return Offer(
        model=price.model_id,
        provider="this catalog",
        source="this catalog",
        as_of=price.valid_from.date(),
        per_million=_prices_by_kind(price),
    )


def baseline_of_price(price: Price, tokens: Mapping[TokenKind, int]) -> Baseline:
    """Return what tokens cost at a price of our catalog."""
    per_million = _prices_by_kind(price)
    return Baseline(
        name=price.model_id,
        amounts=_amounts(per_million, tokens),
        per_million={kind: Fraction(per_million[kind]) for kind in TOKEN_KINDS},
    )


def baseline_of_usage(used: UsageSum) -> Baseline:
    """Return what was billed, whatever the models, tiers and prices that it was billed at."""
    return Baseline(
        name="billed here",
        amounts={kind: Decimal(used.amount_of(kind)).scaleb(-9) for kind in TOKEN_KINDS},
        per_million={
            kind: Fraction(used.amount_of(kind) * _MILLION, _NANO * used.tokens_of(kind))
            for kind in TOKEN_KINDS
            if used.tokens_of(kind)
        },
    )


def compare(
    tokens: Mapping[TokenKind, int], baseline: Baseline, offers: Iterable[Offer]
) -> tuple[Comparison, ...]:
    """Return what tokens cost at each offer, the dearest first."""
    ours = Fraction(baseline.total)
    compared = []
    for offer in offers:
        amounts = _amounts(offer.per_million, tokens)
        compared.append(
            Comparison(
                offer=offer,
                amounts=amounts,
                ratio=Fraction(_exact_sum(amounts.values())) / ours if ours else None,
                by_kind={
                    kind: Fraction(offer.per_million[kind]) / price
                    for kind, price in baseline.per_million.items()
                    if price
                },
            )
        )
    return tuple(sorted(compared, key=lambda one: (-one.total, one.offer.model)))


def ratio_text(ratio: Fraction) -> str:
    """Write a ratio with at most four decimals: `7.5`."""
    with localcontext(prec=_PRECISION):
        decimal = (Decimal(ratio.numerator) / ratio.denominator).quantize(_RATIO_DECIMALS, ROUND_HALF_EVEN)
    return f"{decimal:f}".rstrip("0").rstrip(".")


def _prices_by_kind(price: Price) -> dict[TokenKind, Decimal]:
    return {"input": price.input, "cached_input": price.cached_input, "output": price.output}


def _amounts(
    per_million: Mapping[TokenKind, Decimal], tokens: Mapping[TokenKind, int]
) -> dict[TokenKind, Decimal]:
    with localcontext(prec=_PRECISION):
        return {kind: per_million[kind] * tokens[kind] / _MILLION for kind in TOKEN_KINDS}


def _exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    with localcontext(prec=_PRECISION):
        return sum(amounts, Decimal(0))
