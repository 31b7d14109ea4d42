"""`mezzo train`: teach a model of text to see, examine what it learned, look at what it learned from."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mezzo.cli.address import server_address
from mezzo.cli.options import read_settings
from mezzo.cli.output import CommandFailed, put, say
from mezzo.cli.pull import fetch

if TYPE_CHECKING:
    import httpx

    from mezzo.settings import Settings
    from mezzo.train.data.material import Lexicon
    from mezzo.train.evaluate import Graded, Question

train = typer.Typer(
    name="train",
    no_args_is_help=True,
    help="Teach a model of text to see. Needs the extra `train`: pip install 'mezzo[train]'.",
    pretty_exceptions_enable=False,
)


class RecipeName(StrEnum):
    """Recipes by how much machine they are for."""

    small = "small"
    cpu = "cpu"
    gpu = "gpu"


@train.command()
def vision(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of the run; an interrupted one goes on.")
    ],
    recipe: Annotated[
        RecipeName,
        typer.Option(help="`small` shows that all works (minutes), `cpu` is nano's, `gpu` the larger one."),
    ] = RecipeName.cpu,
    scale: Annotated[float, typer.Option(help="Multiplies the steps of every stage.")] = 1.0,
    stages: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Only these stages, with commas between them.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="PACKAGE", help="What an earlier run printed, to go on from; else from nothing."
        ),
    ] = None,
    package: Annotated[
        bool,
        typer.Option("--package", help="Train nothing; write curves and package from what is saved so far."),
    ] = False,
    language: Annotated[
        str, typer.Option(metavar="WEIGHTS", help="The model of text that learns to see.")
    ] = "nano-text",
    device: Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda` or `mps`.")] = "auto",
    processes: Annotated[
        int,
        typer.Option(min=1, help="Processes that train, averaging every four steps; on a CPU, one a core."),
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw pictures for each of them.")] = 1,
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
) -> None:
    """Train an encoder, a projector and a low-rank update of the decoder on pictures drawn on the way.

    Prints the folder with what was trained: vision.safetensors and vision.json. Curves and logs are beside it.

        mezzo train vision ./run --recipe small
    """
    _require_extra()
    from mezzo.model.errors import UnsupportedCheckpoint
    from mezzo.train.data.source import DrawingStopped
    from mezzo.train.errors import CannotTrain
    from mezzo.train.loop import Pace
    from mezzo.train.recipes import RECIPES
    from mezzo.train.vision_run import VisionRun, image_tokens, training_device

    settings = read_settings({"home": home}, config=config)
    language_folder = fetch(language, settings.home).path
    chosen = RECIPES[recipe.value]
    if scale <= 0:
        raise CommandFailed(f"--scale must be above 0, not {scale}", exit_code=2)
    try:
        if stages is not None:
            chosen = chosen.only([name.strip() for name in stages.split(",")])
    except KeyError as error:
        names = ", ".join(stage.name for stage in chosen.stages)
        raise CommandFailed(f"--stages: there is no stage {error}; there are {names}", exit_code=2) from error
    try:
        run = VisionRun(
            folder=folder,
            recipe=chosen.scaled(scale),
            language=language_folder,
            image_tokens=image_tokens(language_folder),
            device=training_device(device),
            pace=Pace(num_workers=workers),
            start=start,
            processes=processes,
        )
        written = run.package() if package else run.train(_say_line)
    except (
        CannotTrain,
        UnsupportedCheckpoint,
        LookupError,
        FloatingPointError,
        OverflowError,
        DrawingStopped,
    ) as error:
        raise CommandFailed(str(error)) from error
    except OSError as error:
        raise CommandFailed(f"cannot write {folder}: {error.strerror or error}") from error
    put(str(written))


@train.command()
def evaluate(
    url: Annotated[
        str | None,
        typer.Option(
            help="A running server, the one on this machine if left out; start one with `mezzo serve`."
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", help="Key to send; MEZZO_API_KEY or this machine's own if left out."),
    ] = None,
    model: Annotated[str, typer.Option(help="Model to ask.")] = "mistral-medium-latest",
    count: Annotated[int, typer.Option(min=1, help="Questions for each line of the table.")] = 50,
    seed: Annotated[int, typer.Option(help="Another seed draws other pictures.")] = 2025,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where results.json and ten failures are written.")
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Questions in flight.")] = 4,
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
) -> None:
    """Examine a server with pictures that training never drew; print a table of accuracies."""
    _require_extra()
    import httpx

    from mezzo.train.evaluate import accuracy, connect, examine, questions, save_failures
    from mezzo.train.exam import EXAM

    settings = read_settings({"home": home}, config=config)
    address = server_address(url, api_key, settings)
    done: list[Graded] = []
    asked: list[Question] = []

    def advance(one: Graded) -> None:
        done.append(one)
        if len(done) % 50 == 0 or len(done) == len(asked):
            say(f"{len(done)} of {len(asked)} answered")

    try:
        with connect(address.url, address.key, trust_env=not address.is_here) as client:
            lexicon = _lexicon(settings)
            say("drawing")
            asked += questions(EXAM, count, seed, lexicon)
            graded = examine(asked, client, model=model, at_once=at_once, advance=advance)
    except httpx.HTTPStatusError as error:
        raise CommandFailed(f"{address.url} refused: {_refusal(error.response)}") from error
    except httpx.HTTPError as error:
        raise CommandFailed(f"{address.url} does not answer: {error}") from error
    except LookupError as error:
        raise CommandFailed(str(error)) from error
    counts = accuracy(graded)
    put("| task | right | of | share |\n| --- | --- | --- | --- |")
    for task, (right, of) in counts.items():
        put(f"| {task} | {right} | {of} | {right / of:.0%} |")
    if out is None:
        return
    try:
        _write_results(out, graded, counts, save_failures(graded, out, 10), at_once)
    except OSError as error:
        raise CommandFailed(f"cannot write {out}: {error.strerror or error}") from error


@train.command()
def samples(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="PNG file to write.")],
    count: Annotated[int, typer.Option(min=1, help="Pictures of each kind.")] = 2,
    seed: Annotated[int, typer.Option(help="Another seed draws other pictures.")] = 1,
    held_out: Annotated[bool, typer.Option("--held-out", help="Those of the examination.")] = False,
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
) -> None:
    """Draw a sheet of pictures of every kind, with questions and answers beneath them."""
    _require_extra()
    from mezzo.train.data.mixture import samples as drawn
    from mezzo.train.data.sheet import sheet

    settings = read_settings({"home": home}, config=config)
    lexicon = _lexicon(settings)
    try:
        pictures = drawn(count, seed, split="held_out" if held_out else "train", lexicon=lexicon)
    except LookupError as error:
        raise CommandFailed(str(error)) from error
    try:
        sheet(pictures).save(target)
    except (OSError, ValueError) as error:
        raise CommandFailed(f"cannot write {target}: {error}") from error
    put(str(target))


def _lexicon(settings: Settings) -> Lexicon:
    from mezzo.train.data.material import Lexicon

    return Lexicon.from_tokenizer(fetch("nano-text", settings.home).path / "tokenizer.json")


def _require_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("fontTools", "matplotlib") if find_spec(name) is None]
    if missing:
        raise CommandFailed(
            f"training needs {' and '.join(missing)}", hint="Install them with: pip install 'mezzo[train]'"
        )


def _say_line(line: dict[str, Any]) -> None:
    numbers = {name: value for name, value in line.items() if name not in ("stage", "kind", "step", "of")}
    shown = " ".join(f"{name} {value:g}" for name, value in numbers.items())
    say(f"{line['stage']} {line['kind']} {line['step']}/{line['of']}: {shown}")


def _refusal(response: httpx.Response) -> str:
    """Say in a line why a server did not do what it was asked."""
    try:
        body = response.json()
    except ValueError:
        body = None
    said = (body.get("message") or body.get("detail")) if isinstance(body, dict) else None
    return f"{response.status_code} {said or response.reason_phrase}"


def _write_results(
    folder: Path,
    graded: list[Graded],
    counts: dict[str, tuple[int, int]],
    failures: list[tuple[str, Graded]],
    at_once: int,
) -> None:
    results = {
        "accuracy": {task: {"right": right, "of": of} for task, (right, of) in counts.items()},
        "at_once": at_once,
        "median_seconds": sorted(one.seconds for one in graded)[len(graded) // 2],
        "failures": [
            {
                "picture": name,
                "task": one.question.task,
                "question": one.question.turn.question,
                "expected": one.question.turn.answer,
                "said": one.said,
            }
            for name, one in failures
        ],
    }
    (folder / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")
