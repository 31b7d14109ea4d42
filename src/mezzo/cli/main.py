"""The `mezzo` command. Each command has its own file and imports what it needs when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from mezzo import __version__
from mezzo.cli.bench import bench
from mezzo.cli.books import backup, reconcile
from mezzo.cli.chat import chat
from mezzo.cli.export import export
from mezzo.cli.invoices import invoices
from mezzo.cli.keys import keys
from mezzo.cli.models import models
from mezzo.cli.options import SettingsCommand
from mezzo.cli.output import CommandFailed, put, report
from mezzo.cli.pull import pull
from mezzo.cli.serve import serve
from mezzo.cli.train import train
from mezzo.cli.train_documents import documents  # noqa: F401 - a command of `train`
from mezzo.cli.usage import usage
from mezzo.cli.usage_compare import compare_costs  # noqa: F401 - a command of `usage`
from mezzo.cli.users import users
from mezzo.cli.workspaces import workspaces

if TYPE_CHECKING:
    from mezzo.engine.launch import EngineProcess

app = typer.Typer(
    name="mezzo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=SettingsCommand)(serve)
app.command(cls=SettingsCommand)(chat)
app.command(cls=SettingsCommand)(pull)
app.command(cls=SettingsCommand)(models)
app.command(cls=SettingsCommand)(export)
app.command()(bench)
app.command()(reconcile)
app.command()(backup)
app.command(cls=SettingsCommand)(invoices)
app.add_typer(usage)
app.add_typer(train)
app.add_typer(keys)
app.add_typer(users)
app.add_typer(workspaces)


def _show_version(wanted: bool) -> None:
    if wanted:
        put(f"mezzo {__version__}")
        raise typer.Exit


@app.callback()
def mezzo(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Serve a Mistral-family language model behind Mistral's chat completions API, on your own machine.

    Start with `mezzo serve`; it fetches small default weights and prints a request to try. Then talk to it
    with `mezzo chat`, or point any Mistral client at it.
    """


def main(launch: Callable[[], EngineProcess] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 called wrongly, 130 stopped with Ctrl-C.

    launch   gives `serve` its engine processes; see `mezzo.cli.entry`
    """
    try:
        app(prog_name="mezzo", obj=launch)
    except CommandFailed as failure:
        report(failure)
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
