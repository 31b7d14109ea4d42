"""`mezzo usage compare`: the same tokens at the prices of other models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mezzo.cli.options import SettingsCommand
from mezzo.cli.output import put
from mezzo.cli.reports import (
    EndDay,
    FirstDay,
    Organization,
    Workspace,
    Zone,
    choose_period,
    choose_zone,
    read_books,
    refuse,
)
from mezzo.cli.usage import TableFormat, csv_line, usage

if TYPE_CHECKING:
    from decimal import Decimal

    from mezzo.metering.comparison import Baseline, Comparison, Offer
    from mezzo.metering.prices import PriceBook
    from mezzo.metering.usage import TokenKind, UsageSum

_MAX_TOKENS = 10**18


@usage.command(name="compare", cls=SettingsCommand)
def compare_costs(
    input_tokens: Annotated[
        int | None,
        typer.Option(
            "--input", min=0, max=_MAX_TOKENS, help="Prompt tokens that are not cached, not the books'."
        ),
    ] = None,
    cached_input_tokens: Annotated[
        int | None, typer.Option("--cached", min=0, max=_MAX_TOKENS, help="Prompt tokens that are cached.")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option("--output", min=0, max=_MAX_TOKENS, help="Completion tokens.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Whose price the given tokens have here; mistral-medium-2505 if unset."
        ),
    ] = None,
    month: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM", help="The month whose tokens to take; the present one if unset."),
    ] = None,
    first: FirstDay = None,
    end: EndDay = None,
    zone: Zone = "UTC",
    workspace: Workspace = None,
    organization: Organization = None,
    form: Annotated[
        TableFormat, typer.Option("--format", help="`table` to read; `csv` or `json` for programs.")
    ] = TableFormat.table,
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
) -> None:
    """Put tokens at the list prices of other models, and show how many times as much that is.

    The tokens are those of a period in the books, beside what they were billed; or any numbers, at the list price of
    a model here. A text does not make as many tokens with every model: this compares prices, not tokenizers.

        mezzo usage compare --month 2026-09

        mezzo usage compare --input 3000000 --output 1000000
    """
    from datetime import UTC

    from mezzo.catalog.cards import load_catalog
    from mezzo.catalog.price_lists import CURRENCY, load_price_lists
    from mezzo.metering.comparison import compare, offer_of_list_price
    from mezzo.metering.prices import PriceBook
    from mezzo.metering.usage import TOKEN_KINDS, total_usage

    now = datetime.now(UTC)
    prices = PriceBook(load_catalog(), CURRENCY)
    given = dict(zip(TOKEN_KINDS, (input_tokens, cached_input_tokens, output_tokens), strict=True))
    if any(count is not None for count in given.values()):
        _refuse_given({"month": month, "from": first, "to": end, "workspace": workspace})
        tokens = {kind: count or 0 for kind, count in given.items()}
        baseline = _priced(prices, model, tokens, now)
    else:
        if model is not None:
            refuse("--model: it prices given tokens; give --input, --cached or --output")
        period = choose_period(month, first, end, choose_zone(zone), now)
        with read_books(organization, home=home, config=config) as books:
            if books.currency != CURRENCY:
                refuse(f"price lists are in {CURRENCY}, and the books in {books.currency}")
            used = total_usage(books.connection, books.organization_id, period, workspace_id=workspace)
        tokens, baseline = _billed(used)
    offers = [offer_of_list_price(price) for price in load_price_lists()]
    compared = compare(tokens, baseline, [*offers, *_other_models(prices, now, but=baseline.name)])
    if form is TableFormat.json:
        put(json.dumps(_document(tokens, baseline, compared), indent=2))
    elif form is TableFormat.csv:
        rows = [_baseline_row(baseline), *map(_row, compared)]
        put(csv_line(dict(zip(rows[0], rows[0], strict=True))))
        for row in rows:
            put(csv_line(row))
    else:
        _print_table(tokens, baseline, compared)


def _refuse_given(options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if value is not None:
            refuse(f"--{name}: the tokens are given, and not taken from the books")


def _priced(prices: PriceBook, model: str | None, tokens: Mapping[TokenKind, int], now: datetime) -> Baseline:
    from mezzo.metering.comparison import baseline_of_price
    from mezzo.metering.prices import PriceNotFound
    from mezzo.settings import DEFAULT_MODEL_ID

    try:
        return baseline_of_price(prices.find(model or DEFAULT_MODEL_ID, "standard", now), tokens)
    except PriceNotFound as error:
        refuse(f"--model: {error}")


def _billed(used: UsageSum) -> tuple[dict[TokenKind, int], Baseline]:
    from mezzo.metering.comparison import baseline_of_usage
    from mezzo.metering.usage import TOKEN_KINDS

    return {kind: used.tokens_of(kind) for kind in TOKEN_KINDS}, baseline_of_usage(used)


def _other_models(prices: PriceBook, now: datetime, *, but: str) -> list[Offer]:
    """Return the models of the catalog that have a price now, without the one that is compared with."""
    from mezzo.metering.comparison import offer_of_catalog_price
    from mezzo.metering.prices import PriceNotFound

    offers = []
    for model_id in sorted({price.model_id for price in prices} - {but}):
        try:
            offers.append(offer_of_catalog_price(prices.find(model_id, "standard", now)))
        except PriceNotFound:
            continue  # its price is yet to begin
    return offers


def _document(
    tokens: Mapping[TokenKind, int], baseline: Baseline, compared: Sequence[Comparison]
) -> dict[str, Any]:
    from mezzo.catalog.price_lists import CURRENCY

    return {
        "currency": CURRENCY,
        "tokens": tokens,
        "baseline": _baseline_row(baseline),
        "comparisons": [_row(one) for one in compared],
    }


def _baseline_row(baseline: Baseline) -> dict[str, str]:
    return {
        "model": baseline.name,
        "provider": "here",
        "source": "",
        "as_of": "",
        **_amounts(baseline.amounts, baseline.total),
        "ratio": "1",
        "lowest_ratio": "1",
        "highest_ratio": "1",
    }


def _row(one: Comparison) -> dict[str, str]:
    from mezzo.metering.comparison import ratio_text

    ratios = one.by_kind.values()
    return {
        "model": one.offer.model,
        "provider": one.offer.provider,
        "source": one.offer.source,
        "as_of": one.offer.as_of.isoformat(),
        **_amounts(one.amounts, one.total),
        "ratio": "" if one.ratio is None else ratio_text(one.ratio),
        "lowest_ratio": ratio_text(min(ratios)) if ratios else "",
        "highest_ratio": ratio_text(max(ratios)) if ratios else "",
    }


def _amounts(amounts: Mapping[TokenKind, Decimal], total: Decimal) -> dict[str, str]:
    from mezzo.kit.money import decimal_text

    parts = {f"{kind}_amount": decimal_text(amount) for kind, amount in amounts.items()}
    return {**parts, "amount": decimal_text(total)}


def _print_table(tokens: Mapping[TokenKind, int], baseline: Baseline, compared: Sequence[Comparison]) -> None:
    from rich.console import Console
    from rich.table import Table

    from mezzo.catalog.price_lists import CURRENCY

    put(
        f"{tokens['input']:,} input, {tokens['cached_input']:,} cached input and {tokens['output']:,} output tokens"
    )
    put()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("MODEL", overflow="fold")
    table.add_column(CURRENCY, justify="right", no_wrap=True)
    table.add_column("TIMES", justify="right", no_wrap=True)
    table.add_column("ANY MIX", justify="right", no_wrap=True)
    table.add_column("PRICE OF", no_wrap=True)
    for row in [_baseline_row(baseline), *map(_row, compared)]:
        lowest, highest = row["lowest_ratio"], row["highest_ratio"]
        table.add_row(
            row["model"],
            row["amount"],
            row["ratio"] or "–",
            lowest if lowest == highest else f"{lowest} to {highest}",
            row["as_of"],
        )
    Console().print(table)
