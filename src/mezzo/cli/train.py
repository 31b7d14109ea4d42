"""`mezzo train`: teach a model of text to see, examine what it learned, look at what it learned from."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mezzo.cli.options import read_settings
from mezzo.cli.output import CommandFailed, put, say
from mezzo.cli.pull import fetch

if TYPE_CHECKING:
    from mezzo.train.evaluate import Graded

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
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run; an interrupted one goes on.")],
    recipe: Annotated[
        RecipeName,
        typer.Option(help="`small` shows that all works (minutes), `cpu` made what ships, `gpu` is the larger one."),
    ] = RecipeName.cpu,
    scale: Annotated[float, typer.Option(help="Multiplies the steps of every stage.")] = 1.0,
    language: Annotated[
        str, typer.Option(metavar="WEIGHTS", help="The model of text that learns to see.")
    ] = "nano-text",
    device: Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda` or `mps`.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw pictures.")] = 1,
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
) -> None:
    """Train an encoder, a projector and a low-rank update of the decoder on pictures drawn on the way.

    Prints the folder with what was trained: vision.safetensors and vision.json. Curves and logs are beside it.

        mezzo train vision ./run --recipe small
    """
    _require_extra()
    from mezzo.model.errors import UnsupportedCheckpoint
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
        run = VisionRun(
            folder=folder,
            recipe=chosen.scaled(scale),
            language=language_folder,
            image_tokens=image_tokens(language_folder),
            device=training_device(device),
            pace=Pace(num_workers=workers),
        )
        package = run.train(_say_line)
    except (CannotTrain, UnsupportedCheckpoint, LookupError, FloatingPointError) as error:
        raise CommandFailed(str(error)) from error
    except OSError as error:
        raise CommandFailed(f"cannot write {folder}: {error.strerror or error}") from error
    put(str(package))


@train.command()
def evaluate(
    url: Annotated[
        str, typer.Option(help="A running server; start one with `mezzo serve`.")
    ] = "http://127.0.0.1:8000",
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

    from mezzo.train.data.material import Lexicon
    from mezzo.train.evaluate import accuracy, examine, questions, save_failures
    from mezzo.train.exam import EXAM

    settings = read_settings({"home": home}, config=config)
    lexicon = Lexicon.from_tokenizer(fetch("nano-text", settings.home).path / "tokenizer.json")
    say("drawing")
    asked = list(questions(EXAM, count, seed, lexicon))
    done: list[Graded] = []

    def advance(one: Graded) -> None:
        done.append(one)
        if len(done) % 50 == 0 or len(done) == len(asked):
            say(f"{len(done)} of {len(asked)} answered")

    try:
        graded = examine(asked, url=url, model=model, at_once=at_once, advance=advance)
    except httpx.HTTPError as error:
        raise CommandFailed(f"{url} does not answer: {error}") from error
    counts = accuracy(graded)
    put("| task | right | of | share |\n| --- | --- | --- | --- |")
    for task, (right, of) in counts.items():
        put(f"| {task} | {right} | {of} | {right / of:.0%} |")
    if out is not None:
        _write_results(out, graded, counts, save_failures(graded, out, 10))


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
    import random

    from mezzo.train.data.material import Lexicon
    from mezzo.train.data.mixture import SAMPLE_SIZES, draw
    from mezzo.train.data.sheet import sheet

    settings = read_settings({"home": home}, config=config)
    lexicon = Lexicon.from_tokenizer(fetch("nano-text", settings.home).path / "tokenizer.json")
    pictures = [
        draw(
            name, random.Random(f"{seed}/{name}/{number}"), size, 32,
            split="held_out" if held_out else "train", lexicon=lexicon,
        )
        for name, size in SAMPLE_SIZES.items()
        for number in range(count)
    ]  # fmt: skip
    try:
        sheet(pictures).save(target)
    except (OSError, ValueError) as error:
        raise CommandFailed(f"cannot write {target}: {error}") from error
    put(str(target))


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


def _write_results(
    folder: Path, graded: list[Graded], counts: dict[str, tuple[int, int]], failures: list[tuple[str, Graded]]
) -> None:
    results = {
        "accuracy": {task: {"right": right, "of": of} for task, (right, of) in counts.items()},
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
