"""`mezzo bench`: put any server of chat completions under a known load, and tell what its clients saw."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from mezzo.cli.address import server_address
from mezzo.cli.chat import DEFAULT_MODEL
from mezzo.cli.options import read_settings
from mezzo.cli.output import CommandFailed, say

if TYPE_CHECKING:
    from mezzo.bench.client import Target
    from mezzo.bench.report import Report
    from mezzo.bench.run import Result, Run


class DialectChoice(StrEnum):
    """Who counts tokens in a stream unasked."""

    auto = "auto"
    mistral = "mistral"
    openai = "openai"


def bench(
    url: Annotated[
        str | None,
        typer.Argument(show_default=False, help="The server, without /v1; this machine's own if left out."),
    ] = None,
    *,
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload",
            "-w",
            metavar="NAME",
            show_default=False,
            help="streams, prefill, chats, interruption, prediction, or all; can be repeated. "
            "streams and prefill if unset.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=100_000, metavar="R", help="R requests/s that come as they come (an open loop)."
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(min=0.1, max=86_400, metavar="SECONDS", help="How long they come; 60 if unset."),
    ] = None,
    streams: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Numbers of busy streams; 1,8,32 if unset.")
    ] = None,
    requests_per_stream: Annotated[
        int | None, typer.Option(min=1, help="Requests of a load / its streams; 2 if unset.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Completion tokens asked for; the workload's own if unset.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="Of all requests.")] = 0.0,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='Your own prompts: a line of JSON each, {"messages": [...]}.'),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes the prompts and arrivals; 2505 if unset.")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"{DEFAULT_MODEL} or the only model it has, if unset."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", "--api-key", metavar="KEY", show_default=False, help="API key; MEZZO_API_KEY if unset."
        ),
    ] = None,
    dialect: Annotated[
        DialectChoice,
        typer.Option(help="Whether tokens are counted unasked (mistral) or asked for (openai)."),
    ] = DialectChoice.auto,
    timeout: Annotated[
        float, typer.Option(min=1, max=86_400, metavar="SECONDS", help="Of one request.")
    ] = 300.0,
    warm_up: Annotated[
        bool, typer.Option("--warm-up/--no-warm-up", help="First run a small piece of each workload.")
    ] = True,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything measured there.")
    ] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the distributions there.")
    ] = None,
) -> None:
    """Put a server under load and show what its clients saw.

    It can be mezzo, or anything that speaks OpenAI's or Mistral's chat completions API.

    Ctrl-C ends it and shows what was measured until then. Exits with 1 if any request failed.

        mezzo bench

        mezzo bench http://127.0.0.1:8801 -w all --json vllm.json

        mezzo bench --rate 2 --duration 30
    """
    from mezzo.bench.client import Target
    from mezzo.bench.plan import Choice, PlanError, choose_workloads, read_own_prompts
    from mezzo.bench.run import DEFAULT_SEED, Run
    from mezzo.bench.server import NotMeasurable, find_model

    if plot_file is not None and plot_file.suffix.lower() != ".svg":
        _refuse(f"--plot {plot_file}: only .svg is drawn")
    for option, file in (("--json", json_file), ("--plot", plot_file)):
        if file is not None and not file.absolute().parent.is_dir():
            _refuse(f"{option} {file}: there is no such folder")
    choice = Choice(
        names=workload or (),
        streams=streams,
        requests_per_stream=requests_per_stream,
        max_tokens=max_tokens,
        rate=rate,
        duration_s=duration,
        has_own_prompts=prompts is not None,
    )
    try:
        workloads = choose_workloads(choice)
        own = read_own_prompts(prompts) if prompts is not None else []
    except PlanError as error:
        _refuse(str(error))
    address = server_address(url, key, read_settings())
    try:
        chosen_model = model or find_model(address.url, address.key, DEFAULT_MODEL)
        target = Target(
            address.url, address.url, chosen_model, address.key, temperature=temperature, timeout_s=timeout
        )
        target = _in_its_dialect(target, dialect)
        run = Run(target, workloads, seed=DEFAULT_SEED if seed is None else seed, own=own)
        say(f"{chosen_model} at {address.url}, dialect {target.dialect}")
        is_complete = _run(run, warm=warm_up)
    except NotMeasurable as error:
        raise CommandFailed(str(error)) from error
    report = _report(run, target, own_prompts=len(own), warm_up=warm_up, is_complete=is_complete)
    _deliver(report, json_file, plot_file)
    if not is_complete:
        sys.exit(130)
    if report.num_failed:
        sys.exit(1)


def _refuse(message: str) -> NoReturn:
    raise CommandFailed(message, exit_code=2)


def _in_its_dialect(target: Target, choice: DialectChoice) -> Target:
    from mezzo.bench.loop import run_loop
    from mezzo.bench.server import DIALECTS, find_dialect

    known = [dialect for dialect in DIALECTS if choice in (DialectChoice.auto, dialect)]
    return run_loop(find_dialect(target, known)).target


def _run(run: Run, *, warm: bool) -> bool:
    """Run it with a line of progress. Returns False if Ctrl-C ended it."""
    from mezzo.bench.loop import run_loop
    from mezzo.bench.progress import with_progress

    try:
        run_loop(with_progress(run, warm=warm, stream=sys.stderr, on_result=_tell))
    except KeyboardInterrupt:
        run.stop()
        return False
    return True


def _tell(result: Result) -> None:
    for note in result.notes:
        say(f"{result.workload.name}: {note}")


def _report(run: Run, target: Target, *, own_prompts: int, warm_up: bool, is_complete: bool) -> Report:
    from mezzo import __version__
    from mezzo.bench.report import Report

    return Report(
        mezzo=__version__,
        started_at=run.started_at.isoformat(timespec="seconds"),
        url=target.url,
        model=target.model,
        dialect=target.dialect,
        temperature=target.temperature,
        seed=run.seed,
        own_prompts=own_prompts,
        warm_up=warm_up,
        is_complete=is_complete,
        results=run.results,
    )


def _deliver(report: Report, json_file: Path | None, plot_file: Path | None) -> None:
    from rich.console import Console

    from mezzo.bench.plot import write_plot
    from mezzo.bench.report import print_report, warnings_of, write_json

    print_report(report, Console())
    for warning in warnings_of(report.loads()):
        say(warning)
    if not report.is_complete:
        until_then = "what is shown was measured until then" if report.results else "nothing was measured yet"
        say(f"stopped: {until_then}")
    try:
        if json_file is not None:
            write_json(report, json_file)
        if plot_file is not None:
            write_plot(list(report.loads()), f"{report.model} at {report.url}", plot_file)
    except OSError as error:
        raise CommandFailed(f"{error.filename}: {error.strerror or error}") from error
