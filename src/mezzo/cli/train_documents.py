"""`mezzo train documents`: adapt a checkpoint to conversations of one's own."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mezzo.cli.options import read_settings
from mezzo.cli.output import CommandFailed, put, say
from mezzo.cli.pull import fetch
from mezzo.cli.train import train

_LINES_BETWEEN_WORDS = 1000


class TrainingDtype(StrEnum):
    """Number formats of the frozen weights, and of the checkpoint that is written."""

    auto = "auto"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


@train.command()
def documents(
    spec: Annotated[
        str,
        typer.Argument(metavar="WEIGHTS", help="`nano`, `hf:ORG/NAME`, a checkpoint folder or a .gguf file."),
    ],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A .jsonl file of conversations.")],
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of the run; an interrupted one goes on.")
    ],
    rank: Annotated[int, typer.Option(min=1, help="Rank of the update of each matrix.")] = 16,
    epochs: Annotated[int, typer.Option(min=1, help="How often each line is read.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="The highest; it rises to it and falls to 0.")] = 2e-4,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens read in one step, padding included.")
    ] = 2048,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longest prompt with its answer.")] = 2048,
    skip_long: Annotated[
        bool,
        typer.Option(
            "--skip-long", help="Leave longer ones out and count them, instead of refusing the file."
        ),
    ] = False,
    held_out: Annotated[float, typer.Option(help="Share of the lines that are measured, not learnt.")] = 0.1,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the order of lines, and of the update's beginning.")
    ] = 2025,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="Less memory, a third more time: for large models."),
    ] = False,
    device: Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:N` or `mps`.")] = "auto",
    dtype: Annotated[
        TrainingDtype, typer.Option(help="Of the frozen weights and the result; `auto` as in `mezzo serve`.")
    ] = TrainingDtype.auto,
    save_every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How much a kill may cost, at most.")
    ] = 120.0,
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
) -> None:
    """Teach WEIGHTS the answers in DATA, by a low-rank update (LoRA); print the checkpoint's folder.

    Each line of DATA is `{"messages": [...]}` and ends with the assistant's answer. The folder is one that
    `mezzo serve --weights` and others load; the update alone is in RUN/adapter.

        mezzo train documents nano-text questions.jsonl ./run

        mezzo serve --weights ./run/checkpoint
    """
    if not learning_rate > 0:
        raise CommandFailed(f"--learning-rate must be above 0, not {learning_rate}", exit_code=2)
    if not 0 <= held_out < 1:
        raise CommandFailed(f"--held-out must be from 0 to below 1, not {held_out}", exit_code=2)
    if not data.is_file():
        raise CommandFailed(f"there is no file {data}", exit_code=2)
    from mezzo.engine.loader import CannotLoad, resolve_device, resolve_dtype
    from mezzo.model.errors import UnsupportedCheckpoint
    from mezzo.model.export import CannotExport
    from mezzo.prompt.tokenizer import UnsupportedTokenizer
    from mezzo.train.documents.run import DocumentsRun, Options
    from mezzo.train.errors import CannotTrain

    settings = read_settings({"home": home}, config=config)
    weights = fetch(spec, settings.home).path
    try:
        chosen_device = resolve_device(device)
        run = DocumentsRun(
            folder=folder,
            data=data,
            weights=weights,
            base=spec,
            options=Options(
                rank=rank,
                epochs=epochs,
                learning_rate=learning_rate,
                batch_tokens=batch_tokens,
                max_tokens=max_tokens,
                skip_long=skip_long,
                held_out=held_out,
                seed=seed,
            ),
            device=chosen_device,
            dtype=resolve_dtype(dtype.value, chosen_device),
            saves_memory=gradient_checkpointing,
            save_every_s=save_every,
        )
        checkpoint = run.train(_say_line, say, _say_lines_read)
    except (CannotTrain, CannotLoad, CannotExport, UnsupportedCheckpoint, UnsupportedTokenizer) as error:
        raise CommandFailed(str(error)) from error
    except FloatingPointError as error:
        raise CommandFailed(str(error)) from error
    except OSError as error:
        raise CommandFailed(f"{error.filename or folder}: {error.strerror or error}") from error
    put(str(checkpoint))


def _say_lines_read(num_lines: int) -> None:
    if num_lines % _LINES_BETWEEN_WORDS == 0:
        say(f"{num_lines} lines read")


def _say_line(line: dict[str, Any]) -> None:
    where = f"epoch {line['epoch']}/{line['epochs']}, step {line['step']}/{line['of']}"
    right = f"{line['tokens']:.1%} of tokens likeliest"
    if line["kind"] == "held_out":
        say(f"{where}: held out: loss {line['loss']:.4f}, {right}")
        return
    minutes, seconds = divmod(line["seconds_left"], 60)
    say(
        f"{where}: loss {line['loss']:.4f}, {right}, {line['tokens_per_second']:.0f} tokens/s, "
        f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left"
    )
