"""From the start of `mezzo serve` to the first token of a streamed answer, where the time goes, and the memory.

    python -m benchmarks.startup [--home FOLDER] [--runs 7] [--imports] [--save]

The weights must be in the home; the first run is a warm-up and does not count. Each run has a database and a port of
its own, and sends its request as soon as the port takes connections: the server answers it once it can. Given are
medians in seconds since the process was made:

    engine     the engine process is there
    listening  the port takes connections
    ready      the URL is printed
    token      the first text of the answer has arrived
    load       of that, in the engine: weights, cache and warm-up (its own figure)
    cpu        processor seconds of server and engine until ready: what a busier machine would have to find
    idle, used memory (MiB, shared pages divided among those who share them) after one answer, and after `--streams`

`--imports` adds what importing costs each process, by package; `--save` records everything in benchmarks/results.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

import mezzo
from benchmarks.records import save

KEY = "mz-startup-benchmark-0123456789"
LIMIT_S = 120.0
IMPORTS = {
    "server": "import mezzo.cli.main, mezzo.backends.embedded, mezzo.server.app, mezzo.server.uvicorn_server",
    "engine": (
        "from mezzo.engine.torch_import import import_torch; import_torch()\n"
        "import mezzo.engine.core, mezzo.engine.loader"
    ),
}


class Run(msgspec.Struct, frozen=True):
    """One start; see the module. `cpu`, `idle` and `used` are of server and engine."""

    engine: float
    listening: float
    ready: float
    token: float
    load: float
    cpu: tuple[float, float]
    idle: tuple[float, float]
    used: tuple[float, float]


def measure(home: Path, folder: Path, *, num_streams: int) -> Run:
    """Start a server, ask it, and stop it."""
    port = _free_port()
    began = time.monotonic()
    with _server(home, folder, port) as process:
        marks: dict[str, float] = {}

        def note(name: str) -> None:
            marks[name] = time.monotonic() - began

        watching = [
            threading.Thread(target=_watch_engine, args=(process, note)),
            threading.Thread(target=_watch_output, args=(process, note)),
        ]
        for thread in watching:
            thread.start()
        connection = _connect(port, process)
        note("listening")
        _ask(connection, lambda: note("token"))
        for thread in watching:
            thread.join(LIMIT_S)
        pids = (process.pid, *_children(process.pid))
        server, engine = pids[:2]
        cpu = (_cpu_s(server), _cpu_s(engine))
        idle = (_pss_mib(server), _pss_mib(engine))
        streams = [
            threading.Thread(target=lambda: _ask(_connect(port, process), lambda: None))
            for _ in range(num_streams)
        ]
        for stream in streams:
            stream.start()
        for stream in streams:
            stream.join(LIMIT_S)
        used = (_pss_mib(server), _pss_mib(engine))
    (load,) = re.findall(r"load_s['\"=: ]+([\d.]+)", _plain(folder / "log")) or ["nan"]
    return Run(**marks, load=float(load), cpu=cpu, idle=idle, used=used)


@contextmanager
def _server(home: Path, folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEZZO_")}
    environment |= {
        "MEZZO_HOME": str(home),
        "MEZZO_DATABASE_URL": f"sqlite:///{folder / 'mezzo.db'}",
        "MEZZO_API_KEY": KEY,
        "MEZZO_SECRET_KEY": "s" * 43,
        "MEZZO_PORT": str(port),
        # The sources that this process runs, wherever the server's folder is.
        "PYTHONPATH": str(Path(mezzo.__file__).resolve().parents[1]),
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mezzo", "serve"],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def _watch_engine(process: subprocess.Popen[str], note: Callable[[str], None]) -> None:
    while process.poll() is None and not _children(process.pid):
        time.sleep(0.002)
    note("engine")


def _watch_output(process: subprocess.Popen[str], note: Callable[[str], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("  URL "):
            note("ready")
            return


def _connect(port: int, process: subprocess.Popen[str]) -> http.client.HTTPConnection:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        try:
            connection.connect()
        except ConnectionRefusedError:
            time.sleep(0.002)
        else:
            return connection
    raise SystemExit("the server ended, or never listened: see its log")


def _ask(connection: http.client.HTTPConnection, on_token: Callable[[], None]) -> None:
    """Read one streamed answer. Raises: SystemExit if there is none."""
    body = {
        "model": "mistral-medium-latest",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 32,
        "temperature": 0,
        "stream": True,
    }
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"the server answered {response.status}: {response.read()!r}")
    is_first = True
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        choices = json.loads(line.removeprefix(b"data: "))["choices"]
        if is_first and choices and choices[0]["delta"].get("content"):
            is_first = False
            on_token()
    connection.close()


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _pss_mib(pid: int) -> float:
    (kib,) = re.findall(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return round(int(kib) / 1024, 1)


def _plain(log: Path) -> str:
    return re.sub(r"\x1b\[\d*m", "", log.read_text())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def import_costs(program: str) -> dict[str, float]:
    """Return the milliseconds that each top-level package takes to import by itself, the ten largest and the sum."""
    lines = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], capture_output=True, text=True, check=True
    ).stderr.splitlines()
    spent: collections.Counter[str] = collections.Counter()
    for line in lines:
        if match := re.match(r"import time:\s+(\d+) \|\s+\d+ \| +([\w.]+)", line):
            spent[match[2].partition(".")[0]] += int(match[1])
    return {"all": spent.total() / 1000} | {name: us / 1000 for name, us in spent.most_common(10)}


def _median(values: Sequence[float | tuple[float, float]]) -> str:
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    return " + ".join(f"{statistics.median(column):.2f}" for column in zip(*rows, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds from start to first token, and memory.")
    parser.add_argument(
        "--home", type=Path, help="MEZZO_HOME with the weights; the settings' own if left out"
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--imports", action="store_true")
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    if arguments.home is None:
        from mezzo.settings import load_settings  # noqa: PLC0415

        arguments.home = load_settings().home
    runs = []
    for number in range(arguments.runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            run = measure(arguments.home, Path(folder), num_streams=arguments.streams)
        if number:
            runs.append(run)
            print(json.dumps(msgspec.to_builtins(run)), file=sys.stderr)
    for name in Run.__struct_fields__:
        print(f"{name:10} {_median([getattr(run, name) for run in runs])}")
    imports = {name: import_costs(program) for name, program in IMPORTS.items()} if arguments.imports else {}
    for name, costs in imports.items():
        print(
            f"imports of the {name}, ms:", ", ".join(f"{package} {ms:.0f}" for package, ms in costs.items())
        )
    if arguments.save:
        print(save("startup", runs=runs, imports_ms=imports))


if __name__ == "__main__":
    main()
