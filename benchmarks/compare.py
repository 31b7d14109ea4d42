"""Measure several servers in turn, round after round, with the workloads of `mezzo bench`, and record the result.

    python -m benchmarks.compare --topic serving \\
        --server mezzo=http://127.0.0.1:8000,$MEZZO_API_KEY --model mezzo=mistral-medium-latest \\
        --server vllm=http://127.0.0.1:8801 --model vllm=nano --start vllm='vllm serve ...'
    python -m benchmarks.compare --table benchmarks/results/FILE.json

The first server is the one whose ratio to the best of the others is shown. Each round gives every server the same
prompts, one server at a time, in an order that rotates from round to round. The results go to `benchmarks/results/`,
the table to standard output, messages to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import machine, results
from benchmarks.results import Results, ServerFacts, Turn
from benchmarks.servers import ServerSpec, Started, parse_servers, pause, resume, running, starts_s
from mezzo.bench.client import Sample, Target, stream_chat, user_request
from mezzo.bench.loop import run_loop
from mezzo.bench.plan import Choice, choose_workloads
from mezzo.bench.prompts import story_prompt
from mezzo.bench.report import number
from mezzo.bench.run import DEFAULT_SEED, Result, first_number, measure
from mezzo.bench.server import NotMeasurable, find_dialect, warm_up
from mezzo.bench.workloads import AnyWorkload
from mezzo.bench.workloads.base import Session


def main() -> None:
    args = _parse_args()
    if args.table is not None:
        print(results.table(results.read(args.table)))
        return
    try:
        specs = parse_servers(args.server, args.model, args.about, args.start)
        workloads = choose_workloads(_choice(args))
        record = compare(
            specs,
            workloads,
            seed=args.seed,
            rounds=args.rounds,
            starts=args.starts,
            topic=args.topic,
            pauses=args.pause,
        )
    except (ValueError, RuntimeError, OSError, NotMeasurable) as error:
        sys.exit(str(error))
    path = results.write(record)
    _say(f"written: {path}")
    print(results.table(record))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for option, metavar, text in [
        ("--server", "NAME=URL[,KEY]", "a server to measure; repeat for each"),
        ("--model", "NAME=MODEL", "the model to name in requests to it"),
        ("--about", "NAME=TEXT", "software, version, number format; for the record"),
        ("--start", "NAME=COMMAND", "start it first, and stop it at the end"),
    ]:
        parser.add_argument(option, metavar=metavar, help=text, action="append", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--starts", type=int, default=3, help="starts to the first token; one more comes first"
    )
    parser.add_argument(
        "--pause",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the servers that this run started from computing while it is not their turn",
    )
    parser.add_argument("--topic", default="serving", help="last part of the file's name")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print a results file's table")
    _add_workload_arguments(parser)
    args = parser.parse_args()
    if args.table is None and not args.server:
        parser.error("give at least one --server, or --table")
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    if args.starts < 0:
        parser.error("--starts must not be negative")
    return args


def _add_workload_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is measured, as `mezzo bench` has it")
    group.add_argument("--workload", action="append", default=[], help="repeat for each; all if left out")
    group.add_argument("--streams", metavar="N,N,...")
    group.add_argument("--requests-per-stream", type=int)
    group.add_argument("--max-tokens", type=int)
    group.add_argument("--rate", type=float)
    group.add_argument("--duration", type=float)
    group.add_argument("--seed", type=int, default=DEFAULT_SEED)


def _choice(args: argparse.Namespace) -> Choice:
    return Choice(
        names=args.workload or ("all",),
        streams=args.streams,
        requests_per_stream=args.requests_per_stream,
        max_tokens=args.max_tokens,
        rate=args.rate,
        duration_s=args.duration,
    )


def compare(
    specs: Sequence[ServerSpec],
    workloads: Sequence[AnyWorkload],
    *,
    seed: int,
    rounds: int,
    starts: int,
    topic: str,
    pauses: bool = True,
) -> Results:
    """Start what is to be started, measure in rounds, stop what was started.

    Raises: RuntimeError if a server does not start, or counts the same messages differently; NotMeasurable if it does
    not answer.
    """
    # Before anything is measured, so that nothing measured is lost if it fails.
    date, commit = datetime.datetime.now(datetime.UTC).date().isoformat(), machine.commit()
    keys = [spec.key for spec in specs if spec.key]
    start_times = {spec.name: _measure_starts(spec, starts) for spec in specs}
    with contextlib.ExitStack() as stack:
        started: dict[str, Started | None] = {}
        for spec in specs:
            _say(f"{spec.name}: {'starting' if spec.start else 'expected'} at {spec.url}")
            started[spec.name] = stack.enter_context(running(spec))
        targets, texts = _prepare(specs)
        offsets = run_loop(prompt_token_offsets(targets, seed))
        for target in targets:
            _say(f"{target.name}: warming up")
            for index, workload in enumerate(workloads):
                run_loop(warm_up(target, workload, seed=seed, first=first_number(0, index)))
        pids = {name: process.pid for name, process in started.items() if process and pauses}
        turns = _take_turns(targets, workloads, pids, seed=seed, rounds=rounds)
        facts = [
            _facts(
                spec, started[spec.name], start_times[spec.name], offsets[spec.name], texts[spec.name], keys
            )
            for spec in specs
        ]
    return Results(
        topic=topic,
        date=date,
        commit=commit,
        command=machine.public_command(["python", "-m", "benchmarks.compare", *sys.argv[1:]], keys),
        machine=machine.this_machine(),
        libraries=machine.library_versions(),
        workloads=list(workloads),
        seed=seed,
        rounds=rounds,
        warm_up="once per server: a small piece of each workload",
        servers=facts,
        summary=[*results.summarise(turns), *results.fact_rows(facts)],
        turns=turns,
    )


def _measure_starts(spec: ServerSpec, starts: int) -> list[float]:
    """Start and stop it so many times, after once more that brings its files into the page cache."""
    if spec.start is None or not starts:
        return []
    _say(f"{spec.name}: starting {starts + 1} times")
    times = starts_s(spec, starts + 1)[1:]
    _say(f"{spec.name}: first token after {', '.join(f'{time_s:.2f}' for time_s in times)} s")
    return times


def _facts(
    spec: ServerSpec,
    process: Started | None,
    starts: list[float],
    offset: int,
    text: str,
    keys: Sequence[str],
) -> ServerFacts:
    return ServerFacts(
        name=spec.name,
        about=spec.about,
        model=machine.public_command([spec.model], keys),  # to some servers it is a path
        start_command=machine.public_command(shlex.split(spec.start), keys) if spec.start else None,
        starts_s=starts,
        memory_mib=machine.memory_mib(process.pid) if process else None,
        prompt_tokens_offset=offset,
        sample_text=text,
    )


def _prepare(specs: Sequence[ServerSpec]) -> tuple[list[Target], dict[str, str]]:
    targets, texts = [], {}
    for spec in specs:
        found = run_loop(find_dialect(Target(spec.name, spec.url, spec.model, spec.key)))
        targets.append(found.target)
        texts[spec.name] = found.sample.text
        _say(f"{spec.name} says: {found.sample.text!r}")
    return targets, texts


async def prompt_token_offsets(targets: Sequence[Target], seed: int) -> dict[str, int]:
    """Check that all servers see the same prompts, by the tokens they count for three of them.

    A constant difference is a difference of chat template or default system prompt: returned per server.
    Raises: RuntimeError for any other difference.
    """
    counts: dict[str, list[int]] = {}
    for target in targets:
        samples: list[Sample] = [
            await stream_chat(target, user_request(story_prompt(seed, number), max_tokens=1))
            for number in range(3)
        ]
        if failures := [sample.failure for sample in samples if sample.failure]:
            raise RuntimeError(f"{target.name}: {failures[0]}")
        counts[target.name] = [sample.prompt_tokens for sample in samples]
    first = counts[targets[0].name]
    offsets = {}
    for name, counted in counts.items():
        differences = {a - b for a, b in zip(counted, first, strict=True)}
        if len(differences) > 1:
            raise RuntimeError(f"{name} counts {counted} tokens where {targets[0].name} counts {first}")
        offsets[name] = differences.pop()
        if offsets[name]:
            _say(f"{name}: {offsets[name]:+d} prompt tokens in every request, from its template")
    return offsets


def _take_turns(
    targets: Sequence[Target],
    workloads: Sequence[AnyWorkload],
    pids: Mapping[str, int],
    *,
    seed: int,
    rounds: int,
) -> list[Turn]:
    """pids: of the servers that are to stand still while it is another's turn."""
    for pid in pids.values():
        pause(pid)
    turns = []
    for round_number in range(1, rounds + 1):
        shift = round_number % len(targets)
        for target in [*targets[shift:], *targets[:shift]]:
            busy_cores = machine.busy_cores()
            if target.name in pids:
                resume(pids[target.name])
            measured = run_loop(_measure_round(target, workloads, seed=seed, round_number=round_number))
            if target.name in pids:
                pause(pids[target.name])
            turns.append(Turn(round_number, target.name, busy_cores, measured))
            _tell(turns[-1], rounds)
    for pid in pids.values():
        resume(pid)
    return turns


async def _measure_round(
    target: Target, workloads: Sequence[AnyWorkload], *, seed: int, round_number: int
) -> list[Result]:
    await stream_chat(target, user_request("Hello", max_tokens=4))  # it may have stood still for minutes
    return [
        await measure(workload, Session(target, seed, first_number(round_number, index)))
        for index, workload in enumerate(workloads)
    ]


def _tell(turn: Turn, rounds: int) -> None:
    figures = [figure for result in turn.results for figure in result.figures]
    shown = ", ".join(f"{figure.name} {number(figure.value)} {figure.unit}" for figure in figures)
    _say(f"round {turn.round_number}/{rounds}, {turn.server}: {shown}")
    for result in turn.results:
        for note in result.notes:
            _say(f"  {result.workload.name}: {note}")
    if (turn.busy_cores_before or 0.0) > results.QUIET_CORES:
        _say(f"  noisy: {turn.busy_cores_before:.2f} cores were busy just before")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
