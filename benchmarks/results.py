"""The record of one comparison: its file, its summary, and the table made from it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from benchmarks import records
from benchmarks.machine import Machine
from mezzo.bench.figures import BUSY_CLIENT, Figure
from mezzo.bench.report import number
from mezzo.bench.run import Result
from mezzo.bench.workloads import AnyWorkload

# Load by anything else on the machine above which a turn is called noisy: a twentieth of one core.
QUIET_CORES = 0.05
# Completion tokens of one server / those of another, above which a load is said not to have been the same work.
UNEQUAL_WORK = 1.05


class ServerFacts(msgspec.Struct, frozen=True):
    """One server of the comparison.

    starts_s                seconds from its command to the first token of a streamed answer, with its files in the
                            page cache
    memory_mib              after the last round, all its processes, shared pages divided among those that share them
    prompt_tokens_offset    prompt tokens it counts above the first server, for the same messages
    sample_text             what it answered to a short question at temperature 0: proof that it works
    """

    name: str
    about: str
    model: str
    start_command: str | None
    starts_s: list[float]
    memory_mib: float | None
    prompt_tokens_offset: int
    sample_text: str


class Turn(msgspec.Struct, frozen=True):
    """One server's share of one round. busy_cores_before: the load on the machine just before its turn."""

    round_number: int
    server: str
    busy_cores_before: float | None
    results: list[Result]


class Spread(msgspec.Struct, frozen=True):
    """Over the rounds: median, first and third quartile."""

    median: float
    q1: float
    q3: float


class SummaryRow(msgspec.Struct, frozen=True):
    figure: str
    unit: str
    by_server: dict[str, Spread]
    better: Literal["higher", "lower"]


class Results(msgspec.Struct, frozen=True):
    """Everything that a results file holds. `turns` are the measurements, `summary` what the table shows."""

    topic: str
    date: str
    commit: str
    command: str
    machine: Machine
    libraries: dict[str, str]
    workloads: list[AnyWorkload]
    seed: int
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
    rows: dict[str, Figure] = {}
    values: dict[str, dict[str, list[float]]] = {}
    for turn in turns:
        for result in turn.results:
            for figure in result.figures:
                rows.setdefault(figure.name, figure)
                values.setdefault(figure.name, {}).setdefault(turn.server, []).append(figure.value)
    return [
        SummaryRow(
            name,
            rows[name].unit,
            {server: spread(numbers) for server, numbers in by_server.items()},
            rows[name].better,
        )
        for name, by_server in values.items()
    ]


def fact_rows(facts: Sequence[ServerFacts]) -> list[SummaryRow]:
    """Return the rows of what is measured once and not in every round: starts and memory."""
    starts = {server.name: spread(server.starts_s) for server in facts if server.starts_s}
    memory = {server.name: spread([server.memory_mib]) for server in facts if server.memory_mib is not None}
    rows = [
        SummaryRow("start to first token", "s", starts, "lower"),
        SummaryRow("memory", "MiB", memory, "lower"),
    ]
    return [row for row in rows if row.by_server]


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
        counts[turn.server] += sum(result.num_failed for result in turn.results)
    return counts


def ratio_to_best(row: SummaryRow, subject: str) -> tuple[float, str] | None:
    """Return how many times as good as the best of the others a server is, and which that is; None without either."""
    others = {name: spread.median for name, spread in row.by_server.items() if name != subject}
    own = row.by_server.get(subject)
    if own is None or not others:
        return None
    best = (max if row.better == "higher" else min)(others, key=lambda name: others[name])
    above, below = (own.median, others[best]) if row.better == "higher" else (others[best], own.median)
    return (above / below, best) if below else None


def table(results: Results) -> str:
    """Write the results as Markdown. See `table_of`; the first server is compared with the others."""
    lines = [table_of(results, count_errors(results), subject=results.servers[0].name)]
    lines += [f"{server}, {workload}: {note}." for server, workload, note in _notes(results)]
    lines += unequal_work(results)
    return "\n".join(lines)


def _notes(results: Results) -> Iterator[tuple[str, str, str]]:
    seen = set()
    for turn in results.turns:
        for result in turn.results:
            for note in [*result.notes, *_busy_client(result)]:
                line = turn.server, result.workload.name, note
                if line not in seen:
                    seen.add(line)
                    yield line


def _busy_client(result: Result) -> Iterator[str]:
    for load in result.loads:
        if load.client_cpu > BUSY_CLIENT:
            yield f"the client took more than {BUSY_CLIENT:.0%} of a core during {load.name}"


def unequal_work(results: Results) -> list[str]:
    """Return a line for each load in which the servers did not generate as many tokens as each other."""
    tokens: dict[str, dict[str, int]] = {}
    for turn in results.turns:
        for load in (load for result in turn.results for load in result.loads):
            counts = tokens.setdefault(load.name, {})
            counts[turn.server] = counts.get(turn.server, 0) + load.completion_tokens
    lines = []
    for name, by_server in tokens.items():
        if max(by_server.values()) > UNEQUAL_WORK * min(by_server.values()):
            counts_text = ", ".join(f"{server} {count:,}" for server, count in by_server.items())
            lines.append(f"Not the same number of completion tokens in {name}: {counts_text}.")
    return lines


def table_of(results: Record, errors: Mapping[str, int], *, subject: str | None = None) -> str:
    """Write a record as Markdown, one column per server: median (first to third quartile).

    errors: failed requests by server. subject: the server whose ratio to the best of the others has a column.
    """
    servers = results.servers
    headers = [server.name for server in servers]
    if subject is not None and len(servers) > 1:
        headers.append(f"{subject} / best other")
    lines = [f"| | {' | '.join(headers)} |", f"| --- |{' ---: |' * len(headers)}"]
    for row in results.summary:
        cells = [_cell(row.by_server.get(server.name)) for server in servers]
        if len(headers) > len(servers):
            cells.append(_ratio_cell(row, str(subject)))
        lines.append(f"| {row.figure} ({row.unit}) | {' | '.join(cells)} |")
    failed = [str(errors[server.name]) for server in servers] + [""] * (len(headers) - len(servers))
    lines.append(f"| failed requests | {' | '.join(failed)} |")
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


def _ratio_cell(row: SummaryRow, subject: str) -> str:
    found = ratio_to_best(row, subject)
    return "–" if found is None else f"{found[0]:.2f} × {found[1]}"


def noisy_turns(turns: Iterable[AnyTurn]) -> int:
    """Count the turns before which something else kept the machine busy."""
    return sum((turn.busy_cores_before or 0.0) > QUIET_CORES for turn in turns)


def _cell(figures: Spread | None) -> str:
    if figures is None:
        return "–"
    return f"{number(figures.median)} ({number(figures.q1)}–{number(figures.q3)})"


def write(results: Record) -> Path:
    """Write the record to a file of its own."""
    return records.write(results, date=results.date, device=results.machine.slug, topic=results.topic)


def read(path: Path) -> Results:
    """Read a results file. Raises: msgspec.ValidationError where it is not one."""
    return msgspec.json.decode(path.read_bytes(), type=Results)
