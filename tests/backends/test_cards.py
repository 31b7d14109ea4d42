"""Listed cards promise what the weights hold and no more."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from mistralai.client import models as sdk

from mezzo.backends.base import WeightsInfo
from mezzo.backends.cards import model_card, model_cards, served_capabilities
from mezzo.catalog.cards import load_catalog
from mezzo.catalog.resolve import ModelRetired, UnknownModel
from mezzo.protocol.models import Capabilities, ModelList

CATALOG = load_catalog()
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
NANO = {"mistral-medium-2505": WeightsInfo("nano", "SmolLM2-135M-Instruct in float32", 8192)}
LARGE = {
    "mistral-medium-2505": WeightsInfo(
        "large", "something large", 10**6, frozenset({"completion_chat", "vision", "ocr"})
    )
}


def test_one_card_for_each_name_that_answers() -> None:
    cards = model_cards(CATALOG, NANO, strict=False, now=NOW)
    assert [card.id for card in cards] == [
        "mistral-medium-2505",
        "mistral-medium-latest",
        "mistral-medium-2312",
        "mistral-medium",
    ]
    for card in cards:
        assert card.name not in {"mistral-medium-latest", "mistral-medium"}
        assert {card.id, *card.aliases} >= {card.name}
        assert card.id not in card.aliases
        assert card.created == int(NOW.timestamp())


def test_strict_mode_does_not_list_retired_names() -> None:
    cards = model_cards(CATALOG, NANO, strict=True, now=NOW)
    assert [card.id for card in cards] == ["mistral-medium-2505", "mistral-medium-latest"]


def test_nothing_is_listed_without_weights() -> None:
    assert model_cards(CATALOG, {}, strict=False, now=NOW) == []


def test_small_weights_shrink_the_card() -> None:
    card = model_card(CATALOG, "mistral-medium-latest", NANO, strict=True, now=NOW)
    assert card.max_context_length == 8192
    assert card.capabilities == Capabilities(completion_chat=True)
    assert card.default_model_temperature == 0.3
    assert "nano, SmolLM2-135M-Instruct in float32" in card.description
    assert card.deprecation is None
    assert card.deprecation_replacement_model is None


def test_large_weights_do_not_grow_it() -> None:
    card = model_card(CATALOG, "mistral-medium-latest", LARGE, strict=True, now=NOW)
    assert card.max_context_length == 131072
    assert card.capabilities == Capabilities(completion_chat=True, vision=True)


def test_deprecated_card_keeps_its_own_limits_and_names_who_answers() -> None:
    card = model_card(CATALOG, "mistral-medium", LARGE, strict=False, now=NOW)
    assert (card.id, card.name, card.aliases) == (
        "mistral-medium",
        "mistral-medium-2312",
        ["mistral-medium-2312"],
    )
    assert card.max_context_length == 32768
    assert card.capabilities == Capabilities(completion_chat=True)
    assert card.deprecation == datetime(2025, 6, 16, tzinfo=UTC)
    assert card.deprecation_replacement_model == "mistral-medium-2505"
    assert "mistral-medium-2505 (large, something large)" in card.description


def test_requests_may_use_what_the_card_shows() -> None:
    for name in ("mistral-medium-latest", "mistral-medium"):
        resolution = CATALOG.resolve(name, served=LARGE, strict=False, now=NOW)
        capabilities = served_capabilities(resolution, LARGE["mistral-medium-2505"])
        card = model_card(CATALOG, name, LARGE, strict=False, now=NOW)
        assert card.capabilities == Capabilities(**dict.fromkeys(capabilities, True))


def test_one_card_is_refused_like_a_request() -> None:
    with pytest.raises(UnknownModel):
        model_card(CATALOG, "medium-9", NANO, strict=False, now=NOW)
    with pytest.raises(ModelRetired):
        model_card(CATALOG, "mistral-medium", NANO, strict=True, now=NOW)


def test_mistralai_reads_every_card() -> None:
    cards = model_cards(CATALOG, NANO, strict=False, now=NOW)
    parsed = sdk.ModelList.model_validate_json(ModelList(data=cards).to_json()).data
    assert parsed is not None
    assert all(isinstance(card, sdk.BaseModelCard) for card in parsed)
    assert [card.deprecation is None for card in parsed if isinstance(card, sdk.BaseModelCard)] == [
        True,
        True,
        False,
        False,
    ]
