"""The process that tries grammars out, and may die of one: `python -m mezzo.engine.grammar_worker`.

One JSON object a line on stdin, `{"grammar": ..., "begun_with": ...}`; for each, one line on stdout: `null`, or the
reason why it is none, a string. What takes too long or too much memory ends the process instead.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from pathlib import Path

from mezzo.engine.grammar_errors import GrammarError

CPU_LIMIT_S = 3.0  # of one grammar; the slowest of 500 public schemas takes 0.6
MEMORY_LIMIT = 1 << 30  # bytes beside what the process has at its start


def main() -> None:
    """Answer until stdin ends."""
    # Here, because the server imports this module for its limit, and compiles nothing.
    from mezzo.engine.grammar import check_grammar  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; stdin ends with the server
    _limit_memory()
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)  # nobody handles its signal: it ends the process
        try:
            check_grammar(request["grammar"], request["begun_with"].encode())
            reason = None
        except GrammarError as error:
            reason = str(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(reason) + "\n")
        sys.stdout.flush()


def _limit_memory() -> None:
    import resource  # noqa: PLC0415 - POSIX

    # Other systems than Linux have no /proc, and some do not let the limit be set.
    with suppress(OSError, ValueError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_LIMIT, hard))


if __name__ == "__main__":
    main()
