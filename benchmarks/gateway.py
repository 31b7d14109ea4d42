"""What a server before a model costs: a no-op upstream's requests per second and latency, alone and behind gateways.

    python -m benchmarks.gateway --litellm /path/to/bin/litellm [--rounds 5] [--seconds 5] [--save]

Three servers answer the same short requests: `upstream` itself (benchmarks/noop_upstream.py), LiteLLM's proxy before
it, and `mezzo serve` before it with everything on that has a cost: keys, limits, books, logs. Each has its turn in
every round, in rotating order, with 1 and with 8 connections that are kept (closed loops); then mezzo is asked at a
fixed rate (an open loop). Its Server-Timing header says how much of each request went into authentication, limits and
books: the same server without them does not exist.
`--save` records it all in benchmarks/results. LiteLLM is installed apart: `pip install 'litellm[proxy]'`; without it,
leave `--litellm` out.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import shlex
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks import machine, noop_upstream, results
from benchmarks.gateway_servers import make_specs
from benchmarks.machine import Machine
from benchmarks.results import ServerFacts, SummaryRow
from benchmarks.servers import ServerSpec, Started, running
from benchmarks.short_requests import ShortFigures, closed_loop, open_loop
from mezzo.bench.client import Target

CONNECTIONS = (1, 8)
WARM_UP_S = 1.0


class GatewayTurn(msgspec.Struct, frozen=True):
    """One server's share of one round.

    busy_cores_before   the load on the machine just before it
    server_cpu_ms       of each load: processor time that the server's own processes took for a request
    """

    round_number: int
    server: str
    busy_cores_before: float | None
    loads: list[ShortFigures]
    server_cpu_ms: list[float]


class GatewayResults(msgspec.Struct, frozen=True):
    """Everything that a results file holds. `turns` are the measurements, `summary` what the table shows."""

    topic: str
    date: str
    commit: str
    command: str
    machine: Machine
    libraries: dict[str, str]
    rounds: int
    seconds: float
    rate: float
    servers: list[ServerFacts]
    summary: list[SummaryRow]
    turns: list[GatewayTurn]


def main() -> None:
    args = _parse_args()
    with tempfile.TemporaryDirectory() as folder:
        specs = make_specs(Path(folder), litellm=args.litellm)
        record = compare(specs, rounds=args.rounds, seconds=args.seconds, rate=args.rate)
    if args.save:
        print(results.write(record), file=sys.stderr)
    print(table(record))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--litellm", type=Path, metavar="PATH", help="executable of LiteLLM's proxy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second of the open loop")
    parser.add_argument("--save", action="store_true", help="write a file to benchmarks/results")
    return parser.parse_args()


def compare(
    specs: Sequence[ServerSpec], *, rounds: int, seconds: float, rate: float, topic: str = "gateway"
) -> GatewayResults:
    """Start the servers, let each have its turn in every round, and stop them. Raises: RuntimeError."""
    date, commit = datetime.datetime.now(datetime.UTC).date().isoformat(), machine.commit()
    keys = [spec.key for spec in specs if spec.key]
    with contextlib.ExitStack() as stack:
        started: dict[str, Started] = {}
        for spec in specs:
            _say(f"{spec.name}: starting at {spec.url}")
            process = stack.enter_context(running(spec))
            assert process is not None, "every server here has a command that starts it"
            started[spec.name] = process
        pids = {name: process.pid for name, process in started.items()}
        targets = [Target(spec.name, spec.url, spec.model, spec.key) for spec in specs]
        for target in targets:
            _say(f"{target.name}: warming up")
            _measure(target, pids[target.name], seconds=min(seconds, WARM_UP_S), rate=None)
        turns = list(_take_turns(targets, pids, rounds=rounds, seconds=seconds, rate=rate))
        facts = [_facts(spec, started[spec.name], keys) for spec in specs]
    return GatewayResults(
        topic=topic,
        date=date,
        commit=commit,
        command=machine.public_command(["python", "-m", "benchmarks.gateway", *sys.argv[1:]], keys),
        machine=machine.this_machine(),
        libraries=machine.library_versions(),
        rounds=rounds,
        seconds=seconds,
        rate=rate,
        servers=facts,
        summary=[*summarise(turns), *results.fact_rows(facts)],
        turns=turns,
    )


def _take_turns(
    targets: Sequence[Target], pids: Mapping[str, int], *, rounds: int, seconds: float, rate: float
) -> Iterator[GatewayTurn]:
    for round_number in range(1, rounds + 1):
        shift = round_number % len(targets)
        for target in [*targets[shift:], *targets[:shift]]:
            busy_cores = machine.busy_cores()
            own_rate = rate if target.name == "mezzo" else None
            loads, server_cpu_ms = _measure(target, pids[target.name], seconds=seconds, rate=own_rate)
            shown = ", ".join(f"{load.requests_per_s:.0f}" for load in loads)
            _say(f"round {round_number}/{rounds}, {target.name}: {shown} requests/s")
            if (busy_cores or 0.0) > results.QUIET_CORES:
                _say(f"  noisy: {busy_cores:.2f} cores were busy just before")
            yield GatewayTurn(round_number, target.name, busy_cores, loads, server_cpu_ms)


def _measure(
    target: Target, pid: int, *, seconds: float, rate: float | None
) -> tuple[list[ShortFigures], list[float]]:
    """Ask with each number of connections, and at a rate if there is one.

    pid: the server's, whose processor time for a request comes second. Raises: RuntimeError if nothing is answered.
    """
    asking: list[Callable[[], Coroutine[Any, Any, ShortFigures]]] = [
        functools.partial(closed_loop, target, connections=number, seconds=seconds) for number in CONNECTIONS
    ]
    if rate is not None:
        asking.append(functools.partial(open_loop, target, rate=rate, seconds=seconds))
    loads, server_cpu_ms = [], []
    for ask in asking:
        cpu_before = machine.cpu_seconds(pid)
        load = uvloop.run(ask())
        if not load.requests:
            raise RuntimeError(f"{target.name} answered nothing: {load.errors}")
        loads.append(load)
        server_cpu_ms.append(1000 * (machine.cpu_seconds(pid) - cpu_before) / load.requests)
    return loads, server_cpu_ms


def _facts(spec: ServerSpec, process: Started, keys: Sequence[str]) -> ServerFacts:
    return ServerFacts(
        name=spec.name,
        about=spec.about,
        model=spec.model,
        start_command=machine.public_command(shlex.split(spec.start), keys) if spec.start else None,
        starts_s=[process.start_s],
        memory_mib=machine.memory_mib(process.pid),
        prompt_tokens_offset=0,
        sample_text="".join(noop_upstream.WORDS),
    )


def summarise(turns: Sequence[GatewayTurn]) -> list[SummaryRow]:
    """Reduce each figure to its spread over the rounds, per server."""
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for turn in turns:
        for load, server_cpu_ms in zip(turn.loads, turn.server_cpu_ms, strict=True):
            for figure, unit, value in _flatten(load, server_cpu_ms):
                values.setdefault((figure, unit), {}).setdefault(turn.server, []).append(value)
    return [
        SummaryRow(
            figure,
            unit,
            {server: results.spread(numbers) for server, numbers in by_server.items()},
            "higher" if unit == "requests/s" else "lower",
        )
        for (figure, unit), by_server in values.items()
    ]


def _flatten(load: ShortFigures, server_cpu_ms: float) -> Iterator[tuple[str, str, float]]:
    if load.rate is None:
        words = "1 connection" if load.connections == 1 else f"{load.connections} connections"
        yield f"throughput, {words}", "requests/s", load.requests_per_s
        named = {"latency": load.latency_ms}
    else:
        words = f"{load.rate:g} requests/s"
        named = {"latency": load.latency_ms, **load.server_timing_ms}
    for name, percentiles in named.items():
        if percentiles is not None:
            yield f"{name} p50, {words}", "ms", percentiles.p50
            yield f"{name} p99, {words}", "ms", percentiles.p99
    yield f"processor time of a request, {words}", "ms", server_cpu_ms


def table(record: GatewayResults) -> str:
    """Write the results as Markdown, one column per server: median (first to third quartile)."""
    errors = dict.fromkeys((server.name for server in record.servers), 0)
    for turn in record.turns:
        errors[turn.server] += sum(sum(load.errors.values()) for load in turn.loads)
    return results.table_of(record, errors)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
