"""The servers of a comparison: how they are named on the command line, started, awaited and stopped."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence

import msgspec

from benchmarks import machine
from mezzo.bench.client import Target, stream_chat, user_request
from mezzo.bench.loop import run_loop

START_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 0.02
# What a server that is still loading says.
_NOT_YET = ("connection", "HTTP 503")


class ServerSpec(msgspec.Struct, frozen=True):
    """One server as the command line describes it.

    about      software, version and number format, for people
    start      command that starts it; None for a server that is already running
    """

    name: str
    url: str
    key: str | None
    model: str
    about: str
    start: str | None


def parse_servers(
    servers: Sequence[str], models: Sequence[str], abouts: Sequence[str], starts: Sequence[str]
) -> list[ServerSpec]:
    """Join the options `--server`, `--model`, `--about` and `--start`, each `name=value`, by name.

    Raises: ValueError naming the option that is malformed, repeated, missing or about an unknown server.
    """
    urls = _by_name("--server", servers)
    options = {"--model": models, "--about": abouts, "--start": starts}
    values = {option: _by_name(option, given) for option, given in options.items()}
    for option, given in values.items():
        for name in given.keys() - urls.keys():
            raise ValueError(f"{option} {name}=...: no --server has that name")
    for name in urls.keys() - values["--model"].keys():
        raise ValueError(f"--model {name}=... is missing")
    specs = []
    for name, value in urls.items():
        url, _, key = value.partition(",")
        if not url.startswith("http://"):
            raise ValueError(f"--server {name}={url}: expected http://HOST:PORT")
        specs.append(
            ServerSpec(
                name=name,
                url=url.rstrip("/"),
                key=key or None,
                model=values["--model"][name],
                about=values["--about"].get(name, ""),
                start=values["--start"].get(name),
            )
        )
    return specs


def _by_name(option: str, pairs: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} {pair}: expected NAME=VALUE")
        if name in found:
            raise ValueError(f"{option} {name}=... is given twice")
        found[name] = value
    return found


class Started(msgspec.Struct, frozen=True):
    """start_s: from the command to the first token of a first streamed answer."""

    pid: int
    start_s: float


@contextlib.contextmanager
def running(spec: ServerSpec) -> Iterator[Started | None]:
    """Run a server for the length of the block: it answers at the beginning and gets SIGTERM at the end.

    Gives None, and touches nothing, for a server that has no start command.
    Raises: RuntimeError with the end of its output if it does not come up.
    """
    if spec.start is None:
        yield None
        return
    with tempfile.TemporaryFile() as output:
        started_at = time.perf_counter()
        # A session of its own, so that one signal reaches every process the server starts.
        process = subprocess.Popen(
            shlex.split(spec.start), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while (answered_at := run_loop(_first_token_at(spec))) is None:
                if process.poll() is not None or time.perf_counter() - started_at > START_TIMEOUT_S:
                    output.seek(0)
                    tail = output.read()[-2000:].decode(errors="replace")
                    raise RuntimeError(f"{spec.name} did not come up:\n{tail}")
                time.sleep(_LOOK_EVERY_S)
            yield Started(process.pid, answered_at - started_at)
        finally:
            _stop(process)


def starts_s(spec: ServerSpec, count: int) -> list[float]:
    """Start and stop a server so many times; return each start's seconds. Raises: RuntimeError."""
    times = []
    for _ in range(count):
        with running(spec) as started:
            assert started is not None, "only a server with a start command can be started"
            times.append(started.start_s)
    return times


def pause(pid: int) -> None:
    """Keep a server, all its processes, from computing: some spin while they wait for work."""
    for each in machine.tree(pid):
        os.kill(each, signal.SIGSTOP)


def resume(pid: int) -> None:
    for each in machine.tree(pid):
        os.kill(each, signal.SIGCONT)


async def _first_token_at(spec: ServerSpec) -> float | None:
    """Ask for a streamed answer and return when its first token came; None while nobody answers, or not yet.

    Raises: RuntimeError for a refusal, since waiting will not help.
    """
    sample = await stream_chat(
        Target(spec.name, spec.url, spec.model, spec.key), user_request("Hello", max_tokens=4)
    )
    if sample.failure is None:
        return sample.started_at + sample.ttft_s
    if sample.failure.kind in _NOT_YET:
        return None
    raise RuntimeError(f"{spec.name}: {sample.failure}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    resume(process.pid)  # what is paused would not hear of its end
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
