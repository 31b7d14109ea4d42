"""Measure several servers in turn, round after round, and record the result.

    python -m benchmarks.compare --topic first-figures \\
        --server mezzo=http://127.0.0.1:8000,$MEZZO_API_KEY --model mezzo=mistral-medium-latest \\
        --server vllm=http://127.0.0.1:8801 --model vllm=nano --start vllm='vllm serve ...'
    python -m benchmarks.compare --table benchmarks/results/FILE.json

Each round gives every server the same prompts, one server at a time, in an order that rotates from round to
round. The results go to `benchmarks/results/`, the table to standard output, messages to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from benchmarks import machine, results
from benchmarks.client import Sample, Target, stream_chat
from benchmarks.prompts import story_prompt
from benchmarks.results import Results, ServerFacts, Turn
from benchmarks.serve import LoadShape, add_shape_arguments, find_dialect, measure_round, shape_of, warm_up
from benchmarks.servers import ServerSpec, Started, parse_servers, running


def main() -> None:
    args = _parse_args()
    if args.table is not None:
        print(results.table(results.read(args.table)))
        return
    try:
        specs = parse_servers(args.server, args.model, args.about, args.start)
        record = compare(specs, shape_of(args), args.rounds, args.topic)
    except (ValueError, RuntimeError, OSError) as error:
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
    parser.add_argument("--topic", default="serving", help="last part of the file's name")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print a results file's table")
    add_shape_arguments(parser)
    args = parser.parse_args()
    if args.table is None and not args.server:
        parser.error("give at least one --server, or --table")
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    return args


def compare(specs: Sequence[ServerSpec], shape: LoadShape, rounds: int, topic: str) -> Results:
    """Start what is to be started, measure in rounds, stop what was started.

    Raises: RuntimeError if a server does not start, does not answer, or counts the same messages differently.
    """
    # Before anything is measured, so that nothing measured is lost if it fails.
    date, commit = datetime.datetime.now(datetime.UTC).date().isoformat(), machine.commit()
    keys = [spec.key for spec in specs if spec.key]
    with contextlib.ExitStack() as stack:
        started = {}
        for spec in specs:
            _say(f"{spec.name}: {'starting' if spec.start else 'expected'} at {spec.url}")
            started[spec.name] = stack.enter_context(running(spec))
        targets, texts = _prepare(specs)
        offsets = uvloop.run(prompt_token_offsets(targets, shape.seed))
        for target in targets:
            _say(f"{target.name}: warming up")
            uvloop.run(warm_up(target, shape))
        turns = _take_turns(targets, shape, rounds)
        facts = [
            _facts(spec, started[spec.name], offsets[spec.name], texts[spec.name], keys) for spec in specs
        ]
    return Results(
        topic=topic,
        date=date,
        commit=commit,
        command=machine.public_command(["python", "-m", "benchmarks.compare", *sys.argv[1:]], keys),
        machine=machine.this_machine(),
        libraries=machine.library_versions(),
        shape=shape,
        rounds=rounds,
        warm_up="once per server: every load of the shape, with 16 completion tokens",
        servers=facts,
        summary=results.summarise(turns),
        turns=turns,
    )


def _facts(
    spec: ServerSpec, process: Started | None, offset: int, text: str, keys: Sequence[str]
) -> ServerFacts:
    return ServerFacts(
        name=spec.name,
        about=spec.about,
        model=spec.model,
        start_command=machine.public_command(shlex.split(spec.start), keys) if spec.start else None,
        start_s=process.start_s if process else None,
        memory_mib=machine.memory_mib(process.pid) if process else None,
        prompt_tokens_offset=offset,
        sample_text=text,
    )


def _prepare(specs: Sequence[ServerSpec]) -> tuple[list[Target], dict[str, str]]:
    targets, texts = [], {}
    for spec in specs:
        target, sample = uvloop.run(find_dialect(Target(spec.name, spec.url, spec.model, spec.key)))
        targets.append(target)
        texts[spec.name] = sample.text
        _say(f"{spec.name} says: {sample.text!r}")
    return targets, texts


async def prompt_token_offsets(targets: Sequence[Target], seed: int) -> dict[str, int]:
    """Check that all servers see the same prompts, by the tokens they count for three of them.

    A constant difference is a difference of chat template or default system prompt: returned per server.
    Raises: RuntimeError for any other difference.
    """
    counts: dict[str, list[int]] = {}
    for target in targets:
        samples: list[Sample] = [
            await stream_chat(target, story_prompt(seed, number), max_tokens=1) for number in range(3)
        ]
        if errors := [sample.error for sample in samples if sample.error]:
            raise RuntimeError(f"{target.name}: {errors[0]}")
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


def _take_turns(targets: Sequence[Target], shape: LoadShape, rounds: int) -> list[Turn]:
    turns = []
    for round_number in range(1, rounds + 1):
        shift = round_number % len(targets)
        for target in [*targets[shift:], *targets[:shift]]:
            busy_cores = machine.busy_cores()
            figures = uvloop.run(measure_round(target, shape, round_number))
            turns.append(Turn(round_number, target.name, busy_cores, figures))
            rates = ", ".join(f"{load.completion_tokens_per_s:.0f}" for load in figures.loads)
            _say(
                f"round {round_number}/{rounds}, {target.name}: {rates} tokens/s, "
                f"prefill {figures.prefill.tokens_per_s:.0f} tokens/s"
            )
            if (busy_cores or 0.0) > results.QUIET_CORES:
                _say(f"  noisy: {busy_cores:.2f} cores were busy just before")
    return turns


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
