"""`mezzo models`: what it lists, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

from mezzo.catalog.cards import load_catalog
from tests.cli.conftest import Run


def test_json_holds_every_card_of_the_catalog(mezzo: Run) -> None:
    rows = json.loads(mezzo("models", "--json").stdout)
    assert [row["id"] for row in rows] == [card.id for card in load_catalog()]
    current = rows[0]
    assert current["id"] == "mistral-medium-2505"
    assert current["aliases"] == ["mistral-medium-latest"]
    assert current["lifecycle"] == "active"
    assert current["max_context_length"] == 131072
    assert current["price"] == {"currency": "USD", "input_per_million": "0.40", "output_per_million": "2.00"}
    assert (current["served_by"], current["weights"], current["is_fetched"]) == (
        "mistral-medium-2505",
        "nano",
        False,
    )


def test_a_retired_name_is_served_through_its_replacement_unless_the_lifecycle_is_strict(mezzo: Run) -> None:
    def first_medium(**variables: str) -> dict[str, object]:
        rows = json.loads(mezzo("models", "--json", **variables).stdout)
        return next(row for row in rows if row["id"] == "mistral-medium-2312")

    lenient, strict = first_medium(), first_medium(MEZZO_STRICT_LIFECYCLE="true")
    assert (lenient["lifecycle"], lenient["replacement"]) == ("retired", "mistral-medium-2505")
    assert (lenient["served_by"], lenient["weights"]) == ("mistral-medium-2505", "nano")
    assert (strict["served_by"], strict["weights"]) == (None, None)


def test_the_table_shows_whole_names_in_80_columns(mezzo: Run) -> None:
    text = mezzo("models", COLUMNS="80").stdout
    for card in load_catalog():
        assert all(name in text for name in card.names)
    assert "$0.40 / $2.00" in text
    assert "nano (not fetched)" in text
    assert "128k" in text


def test_weights_on_this_machine_are_told_apart(mezzo: Run, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    (row, *_) = json.loads(mezzo("models", "--json", MEZZO_WEIGHTS=str(folder)).stdout)
    assert row["is_fetched"] is True


def test_a_model_that_is_not_in_the_catalog_is_refused(mezzo: Run) -> None:
    for name, said in (("mistral-huge", "is not in the catalog"), ("mistral-medium-latest", "is an alias")):
        done = mezzo("models", MEZZO_MODELS=json.dumps({name: "nano"}))
        assert done.returncode == 2
        assert f"error: models: {name} {said}\n" in done.stderr
