"""The `mezzo` command. A command's module is imported when that command, or help of all, is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mezzo import __version__
from mezzo.cli.options import SettingsCommand
from mezzo.cli.output import CommandFailed, put, report

if TYPE_CHECKING:
    from mezzo.engine.launch import EngineProcess

# In the order of the help. Each is a function, or a group of commands, of that name; `bench`, `reconcile` and `backup`
# have no settings among their options.
_COMMANDS = {
    "serve": "serve",
    "chat": "chat",
    "pull": "pull",
    "models": "models",
    "export": "export",
    "bench": "bench",
    "reconcile": "books",
    "backup": "books",
    "invoices": "invoices",
    "usage": "usage",
    "train": "train",
    "keys": "keys",
    "users": "users",
    "workspaces": "workspaces",
}
_WITHOUT_SETTINGS = frozenset({"bench", "reconcile", "backup"})
# Modules that add a command to a group.
_MORE = {"usage": "usage_compare", "train": "train_documents"}


class LazyGroup(TyperGroup):
    """Commands that are imported by name: building all of them took 0.15 s of every start (decision 26).

    Source of the pattern: "Lazily loading subcommands" of Click's documentation.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, importing nothing."""
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command; None for a name that is none."""
        if cmd_name not in _COMMANDS:
            return None
        found = getattr(import_module(f"mezzo.cli.{_COMMANDS[cmd_name]}"), cmd_name)
        if cmd_name in _MORE:
            import_module(f"mezzo.cli.{_MORE[cmd_name]}")
        if isinstance(found, typer.Typer):
            found.rich_markup_mode = app.rich_markup_mode
            return typer.main.get_group(found)
        alone = typer.Typer(add_completion=False, rich_markup_mode=app.rich_markup_mode)
        alone.command(cmd_name, cls=None if cmd_name in _WITHOUT_SETTINGS else SettingsCommand)(found)
        return typer.main.get_command(alone)


app = typer.Typer(
    name="mezzo",
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
