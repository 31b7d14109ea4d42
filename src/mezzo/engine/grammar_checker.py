"""Whether a grammar can be followed, found out where it cannot hurt: in a process that is killed if it takes too long.

llguidance bounds most of its work, but not all: whether some twenty patterns can match together, or what a multiple of
a large prime looks like, it computes until it knows. Such a grammar costs a few seconds of one core here, once, and
never reaches the engine.
"""

from __future__ import annotations

import hashlib
import json
import select
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import structlog

from mezzo.engine.grammar_errors import GrammarError
from mezzo.engine.grammar_worker import CPU_LIMIT_S

_WALL_LIMIT_S = 5 * CPU_LIMIT_S  # on a machine that has other things to do
_KEPT = 256  # outcomes
TOO_COMPLEX = "it takes too long to compile"

_log = structlog.get_logger("mezzo.engine")


class GrammarChecker:
    """Tries grammars one at a time, and remembers what came of them.

    thread   what else is to be done for a grammar off the event loop: one thing at a time, so that nobody who sends
             many leaves no threads to others
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="grammar-checker")
        self._process: subprocess.Popen[str] | None = None
        self._outcomes: OrderedDict[bytes, str | None] = OrderedDict()

    @property
    def process_id(self) -> int | None:
        """Of the process, None before the first grammar and after the last."""
        return None if self._process is None else self._process.pid

    def check(self, grammar: str, begun_with: str = "") -> None:
        """See whether a text may begin with `begun_with` in a grammar. Blocking: to be called on `thread`.

        Raises: GrammarError, saying why not.
        """
        key = hashlib.sha256(json.dumps([grammar, begun_with]).encode()).digest()
        if key not in self._outcomes:
            self._outcomes[key] = self._try(grammar, begun_with)
            while len(self._outcomes) > _KEPT:
                self._outcomes.popitem(last=False)
        self._outcomes.move_to_end(key)
        if (reason := self._outcomes[key]) is not None:
            raise GrammarError(reason)

    def stop(self) -> None:
        """End the process. What is being tried is given up."""
        self._end()
        self.thread.shutdown(wait=False, cancel_futures=True)

    def _try(self, grammar: str, begun_with: str) -> str | None:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        answer = ""
        try:
            process.stdin.write(json.dumps({"grammar": grammar, "begun_with": begun_with}) + "\n")
            process.stdin.flush()
            if select.select([process.stdout], [], [], _WALL_LIMIT_S)[0]:
                answer = process.stdout.readline()
        except (OSError, ValueError):  # it has died, or was ended while we wrote
            pass
        if answer:
            return json.loads(answer)  # type: ignore[no-any-return]
        self._end()
        _log.warning("grammar given up", num_characters=len(grammar), exit_code=process.returncode)
        return TOO_COMPLEX

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mezzo.engine.grammar_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # an allocation that fails says so at length
                encoding="utf-8",
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
