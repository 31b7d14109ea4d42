"""Starting engine processes. Imports nothing heavy: the first process is launched before anything else is done.

What a process serves it is told later, over its socket. Until then it imports torch, which takes it longer than
its server needs to find out what there is to say.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass

# Threads that wait for each other sleep instead of spinning. A step has hundreds of such waits, and where any other
# process wants a core (the server itself does) the spinning one keeps it from the thread that is waited for: a step
# then takes more than twice as long. Measured: docs/decisions/0005-threads-that-sleep.md.
# And Intel's matrix library rounds a row alike, whatever rows and threads it is computed with
# (docs/decisions/0015-products-that-round-alike.md).
# And the KV cache, which NumPy allocates, is not made of huge pages: it begins in as many places as there are layers
# and heads, and with two megabytes for each the first token cost 240 MB and half a second to clear them
# (docs/decisions/0026-start.md). An operator's own values win.
WORKER_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",
    "MKL_CBWR": "AUTO,STRICT",
    "NUMPY_MADVISE_HUGEPAGE": "0",
}


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """A process that was launched, and our end of its socket."""

    process: subprocess.Popen[bytes]
    socket: socket.socket

    def discard(self) -> None:
        """End a process that nobody has spoken to."""
        self.socket.close()
        self.process.kill()
        self.process.wait()


def launch_engine() -> EngineProcess:
    """Start an engine process; it imports what it needs, and waits for its first message."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own module, our own interpreter
            [sys.executable, "-m", "mezzo.engine.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**WORKER_ENVIRONMENT, **os.environ},
            stdout=sys.stderr.fileno() if _has_fileno(sys.stderr) else subprocess.DEVNULL,
        )
    return EngineProcess(process, ours)


class EarlyLauncher:
    """Launches engine processes, the first of them before anyone asks: on entering the block.

    Called it returns a process. If nobody has asked for the first one when the block is left, it is ended.
    """

    def __init__(self) -> None:
        self._early: EngineProcess | None = None

    def __enter__(self) -> EarlyLauncher:
        if sys.platform != "win32":  # there are no engines there, but servers before others
            self._early = launch_engine()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._early is not None:
            self._early.discard()

    def __call__(self) -> EngineProcess:
        early, self._early = self._early, None
        return early or launch_engine()


def _has_fileno(stream: object) -> bool:
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return False
    return True
