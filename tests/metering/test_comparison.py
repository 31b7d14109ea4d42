"""What tokens cost elsewhere. The claim of the reference: 8 times as cheap as Claude Sonnet 3.7."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from mezzo.catalog.cards import load_catalog
from mezzo.catalog.price_lists import load_price_lists
from mezzo.metering.comparison import (
    Comparison,
    Offer,
    baseline_of_price,
    baseline_of_usage,
    compare,
    offer_of_list_price,
    ratio_text,
)
from mezzo.metering.periods import UTC_ZONE, Month, Period
from mezzo.metering.prices import PriceBook
from mezzo.metering.usage import TokenKind, total_usage
from mezzo.store.database import Database
from tests.metering.rows import add_records, record

OURS = PriceBook(load_catalog(), "USD").find(
    "mistral-medium-2505", "standard", datetime(2026, 9, 1, tzinfo=UTC)
)
OFFERS = {price.model: offer_of_list_price(price) for price in load_price_lists()}

counts = st.integers(min_value=0, max_value=10**15)
mixes = st.tuples(counts, counts, counts).filter(any)


def tokens(given_input: int, cached: int, output: int) -> dict[TokenKind, int]:
    return {"input": given_input, "cached_input": cached, "output": output}


def at(offer: Offer, used: dict[TokenKind, int]) -> Comparison:
    (comparison,) = compare(used, baseline_of_price(OURS, used), [offer])
    return comparison


class TestTheClaim:
    def test_three_million_in_and_one_million_out(self) -> None:
        used = tokens(3_000_000, 0, 1_000_000)
        assert baseline_of_price(OURS, used).total == Decimal("3.20")  # 3 * 0.40 + 1 * 2.00
        comparison = at(OFFERS["Claude Sonnet 3.7"], used)
        assert comparison.total == 24  # 3 * 3.00 + 1 * 15.00
        assert comparison.ratio == Fraction(15, 2)

    @given(mixes)
    def test_it_is_seven_and_a_half_at_every_mix_and_never_eight(self, mix: tuple[int, int, int]) -> None:
        """3.00 / 0.40 = 0.30 / 0.04 = 15.00 / 2.00 = 7.5."""
        comparison = at(OFFERS["Claude Sonnet 3.7"], tokens(*mix))
        assert set(comparison.by_kind.values()) == {comparison.ratio} == {Fraction(15, 2)}


@given(st.sampled_from(sorted(OFFERS)), mixes)
def test_a_mix_s_ratio_lies_between_those_of_its_kinds(model: str, mix: tuple[int, int, int]) -> None:
    comparison = at(OFFERS[model], tokens(*mix))
    assert comparison.ratio is not None
    assert min(comparison.by_kind.values()) <= comparison.ratio <= max(comparison.by_kind.values())


def test_cached_input_costs_what_input_costs_where_it_has_no_price() -> None:
    comparison = at(OFFERS["Command A"], tokens(0, 1_000_000, 0))
    assert comparison.amounts["cached_input"] == Decimal("2.50")
    assert comparison.ratio == Fraction(250, 4)


def test_the_dearest_comes_first() -> None:
    used = tokens(1_000_000, 0, 1_000_000)
    compared = compare(used, baseline_of_price(OURS, used), OFFERS.values())
    assert compared[0].offer.model == "Claude Sonnet 3.7"
    totals = [comparison.total for comparison in compared]
    assert totals == sorted(totals, reverse=True)


def test_what_was_billed_is_compared_whatever_it_was_billed_at(books: Database, organization: str) -> None:
    add_records(
        books,
        [
            record(organization, "w", "2026-09-01 00:00:00+00:00", cached_tokens=0),
            record(organization, "w", "2026-09-01 00:00:00+00:00", cached_tokens=0, service_tier="batch"),
        ],
    )
    with books.read() as connection:
        used = total_usage(connection, organization, Period.of_month(Month.parse("2026-09"), UTC_ZONE))
    baseline = baseline_of_usage(used)
    # 1,000 * 0.40 + 50 * 2.00, and half of it, in millionths of a dollar
    assert baseline.total == Decimal("0.00075")
    (comparison,) = compare(tokens(2000, 0, 100), baseline, [OFFERS["Claude Sonnet 3.7"]])
    assert comparison.total == Decimal("0.0075")  # 2,000 * 3.00 + 100 * 15.00
    assert comparison.ratio == 10
    assert set(comparison.by_kind) == {"input", "output"}  # there was no cached input to have a price


def test_nothing_has_no_ratio() -> None:
    assert at(OFFERS["GPT-4o"], tokens(0, 0, 0)).ratio is None


def test_ratios_as_text() -> None:
    texts = {Fraction(15, 2): "7.5", Fraction(8): "8", Fraction(1, 3): "0.3333", Fraction(100): "100"}
    assert {ratio: ratio_text(ratio) for ratio in texts} == texts
