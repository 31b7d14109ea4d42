"""A run's results: the file, and the tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from mezzo.bench.client import Dialect
from mezzo.bench.figures import BUSY_CLIENT, LoadFigures, Percentiles
from mezzo.bench.run import Result


class Report(msgspec.Struct, frozen=True):
    """Everything that `--json` writes; `format` changes when a field changes its meaning or goes.

    own_prompts   how many messages of one's own took the place of the workloads'; they themselves are not written
    """

    mezzo: str
    started_at: str
    url: str
    model: str
    dialect: Dialect
    temperature: float
    seed: int
    own_prompts: int
    warm_up: bool
    is_complete: bool
    results: list[Result]
    format: str = "mezzo-bench/1"

    @property
    def num_failed(self) -> int:
        return sum(result.num_failed for result in self.results)

    def loads(self) -> Iterator[LoadFigures]:
        for result in self.results:
            yield from result.loads


def write_json(report: Report, path: Path) -> None:
    """Raises: OSError."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def warnings_of(loads: Iterable[LoadFigures]) -> Iterator[str]:
    """Yield what makes figures doubtful, or are failures, one line each."""
    for load in loads:
        for kind, errors in load.errors.items():
            example = f", such as: {' '.join(errors.example.split())}" if errors.example else ""
            yield f"{load.name}: {errors.count} of {load.requests} requests failed, {kind}{example}"
        if load.unfinished:
            yield f"{load.name}: {load.unfinished} requests were still running and do not count"
        if load.client_cpu > BUSY_CLIENT:
            yield (
                f"{load.name}: this client took {load.client_cpu:.0%} of a core, so it may be what was measured, "
                "or in the server's way"
            )


def print_report(report: Report, console: Console) -> None:
    """Print what the workloads are about, counts, rates and times, in 80 columns."""
    if any(result.figures for result in report.results):
        console.print(_figures_table(report.results), "")
    loads = list(report.loads())
    if loads:
        console.print(_counts_table(loads), "", _rates_table(loads), "", _times_table(loads))


def _figures_table(results: Iterable[Result]) -> Table:
    table = _table("FIGURE", "", "UNIT")
    for result in results:
        for figure in result.figures:
            table.add_row(figure.name, number(figure.value), figure.unit)
    return table


def _counts_table(loads: Iterable[LoadFigures]) -> Table:
    table = _table("LOAD", "REQUESTS", "FAILED", "PROMPT", "CACHED", "COMPLETION")
    for load in loads:
        counts = (
            load.requests,
            load.num_failed,
            load.prompt_tokens,
            load.cached_tokens,
            load.completion_tokens,
        )
        table.add_row(load.name, *(f"{count:,}" for count in counts))
    return table


def _rates_table(loads: Iterable[LoadFigures]) -> Table:
    table = _table("TOKENS", "OUT/S", "EACH/S", "PER EVENT", "CLIENT")
    for load in loads:
        rates = (load.completion_tokens_per_s, load.decode_tokens_per_s, load.tokens_per_event)
        table.add_row(load.name, *map(number, rates), f"{load.client_cpu:.0%}")
    return table


def _times_table(loads: Iterable[LoadFigures]) -> Table:
    table = _table("MILLISECONDS", "", "P50", "P90", "P95", "P99", "MAX")
    table.columns[1].justify = "left"
    for load in loads:
        name = load.name
        for kind, percentiles in (("TTFT", load.ttft_ms), ("ITL", load.itl_ms), ("end to end", load.e2e_ms)):
            if percentiles is not None:
                table.add_row(name, kind, *_cells(percentiles))
                name = ""
    return table


def _cells(percentiles: Percentiles) -> list[str]:
    found = (percentiles.p50, percentiles.p90, percentiles.p95, percentiles.p99, percentiles.max)
    return [number(value) for value in found]


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for header in others:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def number(value: float | None) -> str:
    """Three significant digits, and no exponent."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
