"""Where the command `mezzo` begins. For `mezzo serve`, an engine process is launched before anything else is imported.

It imports torch, which takes it longer than its server needs to read the command line and the settings and to listen.
So what it begins earlier, the first token comes earlier. Measured: docs/decisions/0026-start.md.
"""

from __future__ import annotations

import contextlib
import sys

_ASKS_FOR_HELP = frozenset({"--help", "-h"})


def main() -> None:
    """Run the command line and exit, as `mezzo.cli.main.main` does."""
    arguments = sys.argv[1:]
    with contextlib.ExitStack() as stack:
        launch = None
        if arguments[:1] == ["serve"] and _ASKS_FOR_HELP.isdisjoint(arguments):
            from mezzo.engine.launch import EarlyLauncher

            launch = stack.enter_context(EarlyLauncher())
        from mezzo.cli.main import main as run

        run(launch)
