"""The record of one comparison: its file, its summary, and the table made from it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from benchmarks.machine import Machine
from benchmarks.serve import LoadShape, RoundFigures

# Load by anything else on the machine above which a turn is called noisy: a twentieth of one core.
QUIET_CORES = 0.05

RESULTS = Path(__file__).resolve().parent / "results"


class ServerFacts(msgspec.Struct, frozen=True):
    """One server of the comparison.

    start_s                 seconds from its command to its first answered request
    memory_mib              after the last round, all its processes
    prompt_tokens_offset    prompt tokens it counts above the first server, for the same messages
    sample_text             what it answered to a short question at temperature 0: proof that it works
    """

    name: str
    about: str
    model: str
    start_command: str | None
    start_s: float | None
    memory_mib: float | None
    prompt_tokens_offset: int
    sample_text: str


class Turn(msgspec.Struct, frozen=True):
    """One server's share of one round. busy_cores_before: the load on the machine just before its turn."""

    round_number: int
    server: str
    busy_cores_before: float | None
    figures: RoundFigures


class Spread(msgspec.Struct, frozen=True):
    """Over the rounds: median, first and third quartile."""

    median: float
    q1: float
    q3: float


class SummaryRow(msgspec.Struct, frozen=True):
    figure: str
    unit: str
    by_server: dict[str, Spread]


class Results(msgspec.Struct, frozen=True):
    """Everything that a results file holds. `turns` are the measurements, `summary` what the table shows."""

    topic: str
    date: str
    commit: str
    command: str
    machine: Machine
    libraries: dict[str, str]
    shape: LoadShape
    rounds: int
    warm_up: str
    servers: list[ServerFacts]
    summary: list[SummaryRow]
    turns: list[Turn]


class AnyTurn(Protocol):
    """A server's share of a round of any comparison."""

    @property
    def busy_cores_before(self) -> float | None: ...


class Record(Protocol):
    """What the records of all comparisons have in common."""

    @property
    def topic(self) -> str: ...
    @property
    def date(self) -> str: ...
    @property
    def commit(self) -> str: ...
    @property
    def machine(self) -> Machine: ...
    @property
    def rounds(self) -> int: ...
    @property
    def servers(self) -> Sequence[ServerFacts]: ...
    @property
    def summary(self) -> Sequence[SummaryRow]: ...
    @property
    def turns(self) -> Sequence[AnyTurn]: ...


def summarise(turns: Sequence[Turn]) -> list[SummaryRow]:
    """Reduce each figure to its spread over the rounds, per server; a server without a figure is left out."""
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for turn in turns:
        for figure, unit, value in _flatten(turn.figures):
            values.setdefault((figure, unit), {}).setdefault(turn.server, []).append(value)
    return [
        SummaryRow(figure, unit, {server: spread(numbers) for server, numbers in by_server.items()})
        for (figure, unit), by_server in values.items()
    ]


def _flatten(figures: RoundFigures) -> Iterator[tuple[str, str, float]]:
    for load in figures.loads:
        streams = "1 stream" if load.concurrency == 1 else f"{load.concurrency} streams"
        yield f"throughput, {streams}", "tokens/s", load.completion_tokens_per_s
        for name, percentiles in (("TTFT", load.ttft_ms), ("ITL", load.itl_ms)):
            if percentiles is not None:
                yield f"{name} p50, {streams}", "ms", percentiles.p50
                yield f"{name} p99, {streams}", "ms", percentiles.p99
    if figures.prefill.ttft_ms is not None:
        yield "prefill", "tokens/s", figures.prefill.tokens_per_s


def spread(values: Sequence[float]) -> Spread:
    """Take the median and the quartiles, interpolated within the values."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, q1, q3)


def count_errors(results: Results) -> dict[str, int]:
    """Count the failed requests of each server."""
    counts = {server.name: 0 for server in results.servers}
    for turn in results.turns:
        for errors in [turn.figures.prefill.errors, *(load.errors for load in turn.figures.loads)]:
            counts[turn.server] += sum(errors.values())
    return counts


def table(results: Results) -> str:
    """Write the results as Markdown. See `table_of`."""
    return table_of(results, count_errors(results))


def table_of(results: Record, errors: Mapping[str, int]) -> str:
    """Write a record as Markdown, one column per server: median (first to third quartile).

    errors: failed requests by server.
    """
    servers = results.servers
    lines = [
        f"| | {' | '.join(server.name for server in servers)} |",
        f"| --- |{' ---: |' * len(servers)}",
    ]
    for row in results.summary:
        cells = [_cell(row.by_server.get(server.name)) for server in servers]
        lines.append(f"| {row.figure} ({row.unit}) | {' | '.join(cells)} |")
    lines.append(
        f"| start to first answer (s) | {' | '.join(_number(server.start_s) for server in servers)} |"
    )
    lines.append(f"| memory (MiB) | {' | '.join(_number(server.memory_mib) for server in servers)} |")
    lines.append(f"| failed requests | {' | '.join(str(errors[server.name]) for server in servers)} |")
    machine = results.machine
    lines += [
        "",
        "Median (first to third quartile) of "
        f"{results.rounds} rounds; {machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB; "
        f"{results.date}, commit {results.commit}.",
        *(f"{server.name}: {server.about}." for server in servers if server.about),
    ]
    if noisy := noisy_turns(results.turns):
        lines.append(f"**Noisy: the machine was not idle before {noisy} of {len(results.turns)} turns.**")
    return "\n".join(lines)


def noisy_turns(turns: Iterable[AnyTurn]) -> int:
    """Count the turns before which something else kept the machine busy."""
    return sum((turn.busy_cores_before or 0.0) > QUIET_CORES for turn in turns)


def _cell(figures: Spread | None) -> str:
    if figures is None:
        return "–"
    return f"{_number(figures.median)} ({_number(figures.q1)}–{_number(figures.q3)})"


def _number(value: float | None) -> str:
    """Three significant digits, and no exponent."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(results: Record) -> Path:
    """Write `results/<date>-<device>-<topic>.json`; a second run of one day gets a number."""
    stem = f"{results.date}-{results.machine.slug}-{results.topic}"
    path = RESULTS / f"{stem}.json"
    for number in itertools.count(2):
        if not path.exists():
            break
        path = RESULTS / f"{stem}-{number}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    return path


def read(path: Path) -> Results:
    """Read a results file. Raises: msgspec.ValidationError where it is not one."""
    return msgspec.json.decode(path.read_bytes(), type=Results)
