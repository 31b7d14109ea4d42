"""Other providers' list prices: facts with a source, and files that are refused."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from mezzo.catalog.cards import CatalogInvalid
from mezzo.catalog.price_lists import load_price_lists, parse_price_lists

ENTRY = """
[[price]]
model = "A"
provider = "B"
source = "B, pricing"
as_of = 2025-05-07
input_per_million = "1.00"
output_per_million = "2.00"
"""


def test_prices_that_the_reference_was_compared_with() -> None:
    prices = {price.model: price for price in load_price_lists()}
    sonnet, gpt = prices["Claude Sonnet 3.7"], prices["GPT-4o"]
    assert (sonnet.input_per_million, sonnet.cached_input_per_million, sonnet.output_per_million) == (
        Decimal("3.00"),
        Decimal("0.30"),
        Decimal("15.00"),
    )
    assert (gpt.input_per_million, gpt.cached_input_per_million, gpt.output_per_million) == (
        Decimal("2.50"),
        Decimal("1.25"),
        Decimal("10.00"),
    )
    assert all(price.source and price.as_of <= date.today() for price in prices.values())


def test_cached_input_may_have_no_price() -> None:
    (price,) = parse_price_lists(ENTRY)
    assert price.cached_input_per_million is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[price", "Expected"),
        (ENTRY + ENTRY, "more than one price of A"),
        (ENTRY.replace('"1.00"', "1.00"), "as text"),
        (ENTRY.replace('"1.00"', '"-1"'), "input_per_million"),
        (ENTRY.replace("2025-05-07", '"May"'), "as_of"),
        (ENTRY + "currency = 'EUR'", "currency"),
    ],
)
def test_a_file_that_is_refused(text: str, said: str) -> None:
    with pytest.raises(CatalogInvalid, match=said):
        parse_price_lists(text)
