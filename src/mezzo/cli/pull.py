"""`mezzo pull`: bring weights to this machine before they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mezzo.cli.options import read_settings
from mezzo.cli.output import CommandFailed, put, say

if TYPE_CHECKING:
    from mezzo.weights import CheckpointFolder


def pull(
    spec: Annotated[
        str | None,
        typer.Argument(
            metavar="WEIGHTS",
            show_default=False,
            help="`nano`, `hf:ORG/NAME`, or a local .gguf file; what the settings serve if left out.",
        ),
    ] = None,
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
) -> None:
    """Fetch weights, check them and convert them once; print the folder they are in.

    Safe to repeat and to interrupt: weights that are complete are not fetched again, and incomplete ones are
    never used.

        mezzo pull nano

        mezzo pull hf:mistralai/Ministral-3-3B-Instruct-2512
    """
    from mezzo.weights import is_upstream

    settings = read_settings({"home": home}, config=config)
    served = {wanted for wanted in settings.served_models().values() if not is_upstream(wanted)}
    for wanted in [spec] if spec is not None else sorted(served):
        folder = fetch(wanted, settings.home)
        say(f"{wanted}: {folder.description}")
        put(str(folder.path))


def fetch(spec: str, home: Path) -> CheckpointFolder:
    """Return the checkpoint that `spec` names, showing progress on stderr. Raises: CommandFailed."""
    from mezzo.weights import WeightsError, console_progress, resolve_weights

    try:
        return resolve_weights(spec, home=home, progress=console_progress())
    except WeightsError as error:
        raise CommandFailed(str(error), hint=error.hint) from error
