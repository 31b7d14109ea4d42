"""`mezzo export`: write weights as a checkpoint folder for other programs."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mezzo.cli.options import read_settings
from mezzo.cli.output import CommandFailed, put
from mezzo.cli.pull import fetch

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class Dtype(StrEnum):
    """Number formats that weights are written in."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


class ExportLayout(StrEnum):
    """Whose file names and tensor names are written."""

    hf = "hf"
    mistral = "mistral"


def export(
    spec: Annotated[
        str,
        typer.Argument(metavar="WEIGHTS", help="`nano`, `hf:ORG/NAME`, a checkpoint folder or a .gguf file."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder to write into.")],
    dtype: Annotated[Dtype, typer.Option(help="Number format of the written weights.")] = Dtype.bfloat16,
    layout: Annotated[
        ExportLayout,
        typer.Option(
            help="`hf` for transformers and vLLM, `mistral` for params.json and consolidated files."
        ),
    ] = ExportLayout.hf,
    max_shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Largest size of one file, like 5GB or 500MB.")
    ] = "5GB",
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
) -> None:
    """Write weights as a checkpoint folder that transformers, vLLM and other programs load.

    The model is in memory once while it is written. An interrupted export leaves nothing in DIR.

        mezzo export nano ./nano-hf

        vllm serve ./nano-hf
    """
    from mezzo.model.errors import UnsupportedCheckpoint
    from mezzo.model.export import (
        CannotExport,
        check_target,
        exported_bytes,
        load_for_export,
        write_checkpoint,
    )
    from mezzo.weights import companion_files, console_progress

    max_shard_bytes = parse_size(max_shard_size)
    settings = read_settings({"home": home}, config=config)
    progress = console_progress()
    try:
        check_target(folder)
        source = fetch(spec, settings.home).path
        with progress.stage(f"Reading {spec}", _size_of_weights(source)) as advance:
            network = load_for_export(source, dtype.value, _differences(advance))
        with progress.stage(f"Writing {folder}", exported_bytes(network)) as advance:
            write_checkpoint(
                network,
                folder,
                layout=layout.value,
                max_shard_bytes=max_shard_bytes,
                source=source,
                companions=companion_files(source),
                advance=advance,
            )
    except (CannotExport, UnsupportedCheckpoint) as error:
        raise CommandFailed(str(error)) from error
    except OSError as error:
        raise CommandFailed(f"cannot write {folder}: {error.strerror or error}") from error
    put(str(folder))


def parse_size(text: str) -> int:
    """Read a size in bytes, like `5GB`, `500 MB` or `1000000`. Raises: CommandFailed."""
    match = re.fullmatch(r"(\d+)\s*([KMGT]B|)", text.strip().upper())
    if match is None or not int(match[1]):
        raise CommandFailed(f"--max-shard-size {text!r} is no size; write it like 5GB or 500MB", exit_code=2)
    return int(match[1]) * _UNITS[match[2]]


def _size_of_weights(folder: Path) -> int:
    from mezzo.model.weight_files import weight_files

    return sum(file.stat().st_size for file in weight_files(folder))


def _differences(advance: Callable[[int], None]) -> Callable[[int, int], None]:
    """Turn what a loader tells, bytes so far, into what a progress bar wants, bytes since the last time."""
    seen = 0

    def on_progress(loaded: int, total: int) -> None:
        nonlocal seen
        advance(loaded - seen)
        seen = loaded

    return on_progress
