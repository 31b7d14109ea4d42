"""`mezzo usage`: how much was used, by whatever one asks."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mezzo.cli.options import SettingsGroup
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

if TYPE_CHECKING:
    from mezzo.metering.names import Names
    from mezzo.metering.periods import Period
    from mezzo.metering.usage import Dimension, UsageSum

usage = typer.Typer(
    name="usage",
    cls=SettingsGroup,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)

_SUMS = (
    "num_finished",
    "num_aborted",
    "num_failed",
    "num_interrupted",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "image_tokens",
    "accepted_prediction_tokens",
    "rejected_prediction_tokens",
)
_AMOUNTS = ("input_amount", "cached_input_amount", "output_amount", "amount")
# What a sum is about, by the word for it in --by.
_FIELDS: dict[Dimension, str] = {
    "day": "day",
    "workspace": "workspace_id",
    "key": "api_key_id",
    "model": "model_id",
    "tier": "service_tier",
    "price": "price_id",
}


class TableFormat(StrEnum):
    """Forms of a table."""

    table = "table"
    csv = "csv"
    json = "json"


@usage.callback()
def show_usage(
    context: typer.Context,
    by: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="One row for each day, model, workspace, key, tier, price; with commas."
        ),
    ] = "day,model",
    month: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="The month; the present one if no period is given.")
    ] = None,
    first: FirstDay = None,
    end: EndDay = None,
    zone: Zone = "UTC",
    workspace: Workspace = None,
    key: Annotated[str | None, typer.Option(metavar="ID", help="Only what this API key used.")] = None,
    organization: Organization = None,
    form: Annotated[
        TableFormat, typer.Option("--format", help="`table` to read; `csv` or `json` for programs.")
    ] = TableFormat.table,
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
) -> None:
    """Show how much was used, and what it cost.

    Tokens are those that were billed. Requests that failed here are counted and cost nothing. `mezzo usage compare`
    puts the same tokens at the prices of other models.

        mezzo usage

        mezzo usage --month 2026-09 --by workspace,model

        mezzo usage --from 2026-09-01 --to 2026-09-08 --by day --format csv
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    from datetime import UTC

    from mezzo.metering.names import load_names
    from mezzo.metering.usage import sum_usage

    dimensions = _read_dimensions(by)
    period = choose_period(month, first, end, choose_zone(zone), datetime.now(UTC))
    with read_books(organization, home=home, config=config) as books:
        sums = sum_usage(
            books.connection,
            books.organization_id,
            period,
            by=dimensions,
            workspace_id=workspace,
            api_key_id=key,
        )
        if form is TableFormat.csv:
            for line in _csv_lines(sums, dimensions, books.currency):
                put(line)
            return
        rows = list(sums)
        names = load_names(books.connection, books.organization_id)
    if form is TableFormat.json:
        head = {"organization_id": books.organization_id, "currency": books.currency, **_period(period)}
        put(json.dumps({**head, "rows": [_values(row, dimensions) for row in rows]}, indent=2))
    else:
        _print_table(rows, dimensions, names, books.currency)


def _refuse_options_before(context: typer.Context) -> None:
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            command = context.invoked_subcommand
            refuse(f"write options after `{command}`: those before it are of `mezzo usage` alone")


def _read_dimensions(text: str) -> list[Dimension]:
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in _FIELDS:
            refuse(f"--by: {name!r} is not one of {', '.join(_FIELDS)}")
    # Days come first in what the database returns, so they do in what is shown.
    return [dimension for dimension in _FIELDS if dimension in names]


def _period(period: Period) -> dict[str, str]:
    return {
        "from": period.start.isoformat().replace("+00:00", "Z"),
        "to": period.end.isoformat().replace("+00:00", "Z"),
        "time_zone": period.zone.key,
    }


def _values(row: UsageSum, dimensions: Sequence[Dimension]) -> dict[str, Any]:
    """Return a row for programs: ids, integers, and amounts as exact decimals in text."""
    from mezzo.kit.money import exact_text

    values: dict[str, Any] = {_FIELDS[dimension]: str(_of(row, dimension)) for dimension in dimensions}
    values |= {name: getattr(row, name) for name in _SUMS}
    return values | {name: exact_text(getattr(row, name)) for name in _AMOUNTS}


def _csv_lines(rows: Iterable[UsageSum], dimensions: Sequence[Dimension], currency: str) -> Iterable[str]:
    # Without names: a spreadsheet takes some texts for formulas, and these are anybody's.
    columns = [*(_FIELDS[dimension] for dimension in dimensions), *_SUMS, *_AMOUNTS, "currency"]
    yield csv_line(dict(zip(columns, columns, strict=True)))
    for row in rows:
        yield csv_line({**_values(row, dimensions), "currency": currency})


def csv_line(values: Mapping[str, Any]) -> str:
    """Return one line of CSV without its end."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="").writerow(values.values())
    return text.getvalue()


def _print_table(
    rows: Sequence[UsageSum], dimensions: Sequence[Dimension], names: Names, currency: str
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mezzo.kit.money import exact_text

    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    for position, dimension in enumerate(dimensions):
        table.add_column(dimension.upper(), "" if position else "TOTAL", overflow="fold")
    total_tokens = [sum(row.tokens_of(kind) for row in rows) for kind in ("input", "cached_input", "output")]
    for heading, total in (
        ("REQUESTS", f"{sum(row.num_requests for row in rows):,}"),
        ("INPUT", f"{total_tokens[0]:,}"),
        ("CACHED", f"{total_tokens[1]:,}"),
        ("OUTPUT", f"{total_tokens[2]:,}"),
        (currency, exact_text(sum(row.amount for row in rows))),
    ):
        table.add_column(heading, total, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            *(Text(_shown(row, dimension, names)) for dimension in dimensions),
            f"{row.num_requests:,}",
            f"{row.input_tokens:,}",
            f"{row.cached_input_tokens:,}",
            f"{row.output_tokens:,}",
            exact_text(row.amount),
        )
    Console().print(table)


def _shown(row: UsageSum, dimension: Dimension, names: Names) -> str:
    from mezzo.metering.names import visible

    value = str(_of(row, dimension))
    known = {"workspace": names.workspaces, "key": names.keys}.get(dimension, {}).get(value)
    return value if known is None else f"{visible(known)} ({value[:8]})"


def _of(row: UsageSum, dimension: Dimension) -> Any:
    return getattr(row, _FIELDS[dimension])
