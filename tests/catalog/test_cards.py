"""The shipped catalog's facts, and that a wrong catalog never loads."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from pydantic import ValidationError

from mezzo.catalog.cards import CatalogInvalid, load_catalog, parse_catalog
from mezzo.protocol.models import Capabilities

CATALOG = load_catalog()
ALL_NINE = {
    "structured-outputs",
    "function-calling",
    "document-qna",
    "prefix",
    "chat-completions",
    "agents-conversations",
    "connectors",
    "batching",
    "predicted-outputs",
}


@pytest.mark.parametrize(
    ("name", "card_id"),
    [
        ("mistral-medium-2505", "mistral-medium-2505"),
        ("mistral-medium-latest", "mistral-medium-2505"),
        ("mistral-medium-2312", "mistral-medium-2312"),
        ("mistral-medium", "mistral-medium-2312"),
        ("mistral-medium-2508", "mistral-medium-2508"),
        ("mistral-medium-3-5", "mistral-medium-3-5"),
        ("mistral-medium-3.5", "mistral-medium-3-5"),
        ("mistral-medium-2604", "mistral-medium-3-5"),
    ],
)
def test_names_of_the_family(name: str, card_id: str) -> None:
    card = CATALOG.find(name)
    assert card is not None
    assert card.id == card_id


def test_medium_3() -> None:
    card = CATALOG.find("mistral-medium-2505")
    assert card is not None
    assert card.released == datetime(2025, 5, 7, tzinfo=UTC)
    assert card.context == 131072
    assert card.input_modalities == ("text", "image")
    assert card.output_modalities == ("text",)
    assert card.default_temperature == 0.3
    assert card.features == ALL_NINE
    assert card.deprecated_on is None
    dollars = next(
        price for price in card.prices if (price.currency, price.service_tier) == ("USD", "standard")
    )
    assert (dollars.input_per_million, dollars.output_per_million) == (Decimal("0.40"), Decimal("2.00"))
    assert dollars.cached_input_per_million == Decimal("0.04")
    assert dollars.valid_from == card.released


def test_medium_1_is_deprecated_in_favour_of_medium_3() -> None:
    card = CATALOG.find("mistral-medium-2312")
    assert card is not None
    assert card.context == 32768
    assert card.capabilities == {"completion_chat"}
    assert card.features == frozenset()
    assert card.replacement == "mistral-medium-2505"
    deprecated, retired = datetime(2024, 11, 30, tzinfo=UTC), datetime(2025, 6, 16, tzinfo=UTC)
    assert card.lifecycle(datetime(2024, 11, 29, 23, 59, tzinfo=UTC)) == "active"
    assert card.lifecycle(deprecated) == "deprecated"
    assert card.lifecycle(datetime(2025, 6, 15, 23, 59, tzinfo=UTC)) == "deprecated"
    assert card.lifecycle(retired) == "retired"


def test_capabilities_are_names_of_the_wire() -> None:
    for card in CATALOG:
        assert card.capabilities <= set(Capabilities.__struct_fields__)


def test_cards_never_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CATALOG.cards[0].context = 1  # type: ignore[misc]


ONE = """
[[model]]
id = "a"
description = "A."
released = 2025-01-01T00:00:00Z
context = 10
input_modalities = ["text"]
output_modalities = ["text"]
default_temperature = 0.3
capabilities = ["completion_chat"]

[[model.prices]]
valid_from = 2025-01-01T00:00:00Z
currency = "USD"
service_tier = "standard"
input_per_million = "1"
cached_input_per_million = "0.1"
output_per_million = "2"
"""
PRICE = ONE[ONE.index("[[model.prices]]") :]
END = "deprecated_on = 2025-02-01T00:00:00Z\nretires_at = 2025-03-01T00:00:00Z\n"


def changed(old: str, new: str) -> str:
    assert old in ONE
    return ONE.replace(old, new)


def another(name: str, rest: str = "") -> str:
    return changed('id = "a"', f'id = "{name}"\n{rest}')


def test_tiers_cost_what_the_reference_s_arithmetic_says() -> None:
    for card in CATALOG:
        standard = {price.currency: price for price in card.prices if price.service_tier == "standard"}
        for price in card.prices:
            factor = {"standard": Decimal(1), "priority": Decimal("1.75"), "batch": Decimal("0.5")}[
                price.service_tier
            ]
            for kind in ("input_per_million", "cached_input_per_million", "output_per_million"):
                assert getattr(price, kind) == factor * getattr(standard[price.currency], kind), card.id


def test_smallest_catalog_loads() -> None:
    assert [card.names for card in parse_catalog(ONE)] == [("a",)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model = [", "not TOML"),
        ("", "model"),
        (ONE + "\n[extra]\n", "extra"),
        (changed("context = 10", "context = 10\ncolour = 1"), "colour"),
        (changed("context = 10", "context = 0"), "context"),
        (changed("context = 10\n", ""), "context"),
        (changed('"1"', "1.0"), "write amounts as text"),
        (changed('"1"', '"-1"'), "input_per_million"),
        (changed('"1"', '"NaN"'), "input_per_million"),
        (changed('"USD"', '"GBP"'), "currency"),
        (changed("context = 10", 'context = "10"'), "context"),
        (ONE + PRICE, "two prices of one currency"),
        (changed("2025-01-01T00:00:00Z", "2025-01-01"), "released"),
        (changed("2025-01-01T00:00:00Z", "2025-01-01T00:00:00"), "timezone"),
        (changed('input_modalities = ["text"]', 'input_modalities = ["smell"]'), "input_modalities"),
        (ONE + ONE, "a is a name of both a and a"),
        (ONE + another("b", 'aliases = ["a"]'), "a is a name of both a and b"),
        (another("b", 'aliases = ["c", "c"]'), "c is a name of both b and b"),
        (ONE + another("b", END), "belong together"),
        (another("b", 'replacement = "b"'), "belong together"),
        (another("b", END + 'replacement = "a"'), "b is replaced by a, which is no model here"),
        (another("b", END + 'replacement = "b"'), "lead back"),
        (
            another("b", END + 'replacement = "c"') + another("c", END + 'replacement = "b"'),
            "the replacements of b lead back to it",
        ),
        (
            ONE + another("b", END.replace("2025-02", "2025-04") + 'replacement = "a"'),
            "must follow each other",
        ),
    ],
)
def test_wrong_catalog_says_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(CatalogInvalid, match=complaint):
        parse_catalog(text)
