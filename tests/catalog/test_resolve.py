"""Which card answers for a name: aliases, replacements, retirement, and names nobody serves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mezzo.catalog.cards import load_catalog, parse_catalog
from mezzo.catalog.resolve import ModelRetired, Resolution, UnknownModel

CATALOG = load_catalog()
NOW = datetime(2026, 11, 1, tzinfo=UTC)
BEFORE_RETIREMENT = datetime(2025, 1, 1, tzinfo=UTC)
BEFORE_DEPRECATION = datetime(2024, 1, 1, tzinfo=UTC)
RETIREMENT = datetime(2025, 6, 16, tzinfo=UTC)


def resolve(name: str, *served: str, strict: bool = False, now: datetime = NOW) -> Resolution:
    return CATALOG.resolve(name, served=served or ("mistral-medium-2505",), strict=strict, now=now)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["mistral-medium-2505", "mistral-medium-latest"])
def test_current_model_answers_under_all_its_names(name: str, strict: bool) -> None:
    resolution = resolve(name, strict=strict)
    assert resolution.requested == name
    assert resolution.card.id == resolution.served_by.id == "mistral-medium-2505"
    assert resolution.deprecation_timestamp is None


@pytest.mark.parametrize("name", ["mistral-medium-2312", "mistral-medium"])
def test_retired_model_answers_through_its_replacement(name: str) -> None:
    resolution = resolve(name)
    assert resolution.requested == name
    assert resolution.card.id == "mistral-medium-2312"
    assert resolution.served_by.id == "mistral-medium-2505"
    assert resolution.deprecation_timestamp == RETIREMENT


@pytest.mark.parametrize("name", ["mistral-medium-2312", "mistral-medium"])
def test_strict_mode_refuses_retired_names_and_says_what_to_use(name: str) -> None:
    with pytest.raises(ModelRetired) as caught:
        resolve(name, strict=True)
    assert (caught.value.name, caught.value.replacement) == (name, "mistral-medium-2505")


def test_strict_mode_refuses_a_retired_name_even_if_it_has_weights() -> None:
    with pytest.raises(ModelRetired):
        resolve("mistral-medium-2312", "mistral-medium-2312", strict=True)


def test_strict_mode_serves_a_deprecated_name_until_the_moment_of_retirement() -> None:
    resolution = resolve("mistral-medium", strict=True, now=BEFORE_RETIREMENT)
    assert resolution.deprecation_timestamp == RETIREMENT
    with pytest.raises(ModelRetired):
        resolve("mistral-medium", strict=True, now=RETIREMENT)


def test_nothing_is_said_before_the_deprecation() -> None:
    assert resolve("mistral-medium", now=BEFORE_DEPRECATION).deprecation_timestamp is None


def test_a_deprecated_model_with_weights_of_its_own_answers_itself() -> None:
    resolution = resolve("mistral-medium", "mistral-medium-2312", "mistral-medium-2505")
    assert resolution.served_by.id == "mistral-medium-2312"
    assert resolution.deprecation_timestamp == RETIREMENT


@pytest.mark.parametrize(
    "name",
    [
        "",
        "medium-9",
        "Mistral-Medium-2505",
        "mistral-medium-2505 ",
        "mistral-medium-2508",
        "mistral-medium-3-5",
    ],
)
def test_names_that_nothing_serves_are_unknown(name: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        resolve(name)
    assert caught.value.name == name


def test_current_model_without_weights_is_unknown_and_so_is_what_it_replaces() -> None:
    for name in ("mistral-medium-latest", "mistral-medium"):
        with pytest.raises(UnknownModel):
            resolve(name, "mistral-medium-3-5")


def test_replacements_are_followed_to_the_first_that_is_served() -> None:
    card = """
[[model]]
id = "{id}"
{rest}
description = "x"
released = 2025-01-01T00:00:00Z
context = 10
input_modalities = ["text"]
output_modalities = ["text"]
default_temperature = 0.3
capabilities = []
prices = []
"""
    end = 'deprecated_on = 2025-02-01T00:00:00Z\nretires_at = 2025-03-01T00:00:00Z\nreplacement = "{}"'
    catalog = parse_catalog(
        card.format(id="one", rest=end.format("two"))
        + card.format(id="two", rest=end.format("three"))
        + card.format(id="three", rest="")
    )
    assert catalog.resolve("one", served={"three"}, strict=False, now=NOW).served_by.id == "three"
    assert catalog.resolve("one", served={"two", "three"}, strict=False, now=NOW).served_by.id == "two"
