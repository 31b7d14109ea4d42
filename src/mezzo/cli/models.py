"""`mezzo models`: the catalog, and which weights of this machine stand behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mezzo.cli.options import read_settings
from mezzo.cli.output import CommandFailed, put

if TYPE_CHECKING:
    from datetime import datetime

    from mezzo.catalog.cards import Card, Catalog, Price
    from mezzo.settings import Settings


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
) -> None:
    """List the model names, their lifecycle, context and price, and the weights that answer for them.

    A name under a model is an alias; → names the model that answers in its place. Prices are per million
    tokens. The context is the model card's; GET /v1/models of a running server says what its weights hold.

        mezzo models

        mezzo models --json | jq '.[] | select(.weights)'
    """
    from datetime import UTC, datetime

    from mezzo.catalog.cards import load_catalog

    settings = read_settings({"home": home}, config=config)
    catalog, now = load_catalog(), datetime.now(UTC)
    check_served(settings, catalog)
    rows = [_row(card, catalog, settings, now) for card in catalog]
    if as_json:
        put(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _print_table(rows)


def check_served(settings: Settings, catalog: Catalog) -> None:
    """Check that the settings give weights to model ids that exist. Raises: CommandFailed."""
    for model_id in settings.served_models():
        card = catalog.find(model_id)
        if card is None or card.id != model_id:
            meant = f"Use its id, {card.id}." if card else f"Use one of {', '.join(c.id for c in catalog)}."
            raise CommandFailed(
                f"models: {model_id} is {'an alias' if card else 'not in the catalog'}",
                hint=meant,
                exit_code=2,
            )


def _row(card: Card, catalog: Catalog, settings: Settings, now: datetime) -> dict[str, Any]:
    from mezzo.catalog.resolve import ModelRetired, UnknownModel

    served = settings.served_models()
    try:
        served_by = catalog.resolve(
            card.id, served=served, strict=settings.strict_lifecycle, now=now
        ).served_by.id
    except (UnknownModel, ModelRetired):
        served_by = None
    weights = served[served_by] if served_by else None
    price = _price(card, now)
    return {
        "id": card.id,
        "aliases": list(card.aliases),
        "lifecycle": card.lifecycle(now),
        "retires_at": card.retires_at.isoformat() if card.retires_at else None,
        "replacement": card.replacement,
        "max_context_length": card.context,
        "price": price
        and {
            "currency": price.currency,
            "input_per_million": str(price.input_per_million),
            "output_per_million": str(price.output_per_million),
        },
        "served_by": served_by,
        "weights": weights,
        "is_fetched": None if weights is None else _is_fetched(weights, settings.home),
    }


def _price(card: Card, now: datetime) -> Price | None:
    """Return the price in force, in dollars where there is one."""
    in_force = [price for price in card.prices if price.valid_from <= now]
    newest_first = sorted(in_force, key=lambda price: price.valid_from, reverse=True)
    return next((p for p in newest_first if p.currency == "USD"), newest_first[0] if newest_first else None)


def _is_fetched(spec: str, home: Path) -> bool | None:
    """Tell whether weights are here; None for an upstream, which has none that could be."""
    from mezzo.weights import WeightsError, find_weights, is_upstream

    if is_upstream(spec):
        return None
    try:
        return find_weights(spec, home) is not None
    except WeightsError as error:
        raise CommandFailed(str(error), hint=error.hint) from error


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("MODEL", no_wrap=True)
    for heading in ("LIFECYCLE", "CONTEXT", "IN / OUT PER M", "WEIGHTS"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        replaced = [f"→ {row['replacement']}"] if row["replacement"] else []
        table.add_row(
            "\n".join([row["id"], *(f"  {alias}" for alias in row["aliases"]), *replaced]),
            row["lifecycle"],
            f"{row['max_context_length'] // 1024}k",
            _price_text(row["price"]),
            _weights_text(row),
        )
    Console().print(table)


def _price_text(price: dict[str, str] | None) -> str:
    if price is None:
        return "–"
    sign = {"USD": "$", "EUR": "€"}[price["currency"]]
    return f"{sign}{price['input_per_million']} / {sign}{price['output_per_million']}"


def _weights_text(row: dict[str, Any]) -> str:
    if row["weights"] is None:
        return "–"
    if row["is_fetched"] is None:
        return str(row["weights"])
    return f"{row['weights']} ({'here' if row['is_fetched'] else 'not fetched'})"
