"""Options of commands that are settings: named, described and defaulted by the settings class alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup, TyperOption

from mezzo.cli.output import CommandFailed

if TYPE_CHECKING:
    from mezzo.settings import Settings


class SettingsCommand(TyperCommand):
    """A command whose options without a help text are settings.

    Their descriptions are looked up when help is shown: the settings class takes longer to import than
    everything else that `mezzo --help` needs.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Describe the options, then show the help."""
        _describe_settings(self.params)
        super().format_help(ctx, formatter)


class SettingsGroup(TyperGroup):
    """A command with commands of its own, whose options without a help text are settings; see `SettingsCommand`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Describe the options, then show the help."""
        _describe_settings(self.params)
        super().format_help(ctx, formatter)


def _describe_settings(params: Iterable[object]) -> None:
    from mezzo.settings import Settings

    for param in params:
        if isinstance(param, TyperOption) and param.help is None and param.name in Settings.model_fields:
            field = Settings.model_fields[param.name]
            default = field.get_default(call_default_factory=True)
            shown = "" if default is None or default is False else f" ({default})"
            param.help = f"{field.description}{shown}"


def read_settings(options: dict[str, object] | None = None, *, config: Path | None = None) -> Settings:
    """Read the settings, `options` on top. Raises: CommandFailed (exit code 2) naming the one at fault."""
    from mezzo.settings import SettingsError, load_settings

    try:
        return load_settings(options, config=config)
    except SettingsError as error:
        raise CommandFailed(str(error), exit_code=2) from error


def read_api_key(settings: Settings) -> str:
    """Return the configured key or this machine's own. Raises: CommandFailed."""
    from mezzo.kit.secrets import MachineKeyError

    try:
        return settings.resolve_api_key()
    except MachineKeyError as error:
        raise CommandFailed(str(error)) from error
    except OSError as error:
        raise CommandFailed(
            f"this machine's API key cannot be kept in {settings.home}: {error.strerror or error}",
            hint="Set MEZZO_HOME to a folder you may write, or MEZZO_API_KEY to a key of your own.",
        ) from error
