"""`mezzo bench` against mezzo, against a server of OpenAI's kind, and against servers that fail."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import pytest

from mezzo.bench.report import Report
from tests.bench.events import DONE, event, usage
from tests.bench.scripted_server import Script, ScriptedServer, scripted_server
from tests.cli.conftest import Run
from tests.fakes import FakeBackend
from tests.fakes import Script as FakeScript
from tests.server.live import KEY, MODEL, LiveServer, live_server


@pytest.fixture
def call(call: Run) -> Run:
    """Return a function that does as `mezzo bench ARGS` does, on a wide terminal."""
    return lambda *args, **variables: call("bench", *args, **{"COLUMNS": "140", **variables})


@pytest.fixture(scope="module")
def mezzo_server() -> Iterator[LiveServer]:
    script = FakeScript(text="Once upon a time in a town", cached_tokens=4)
    # A token of the fake is a byte, so that prompts are long.
    with live_server(FakeBackend(script, max_context_length=100_000)) as server:
        yield server


@pytest.fixture
def openai_server() -> Iterator[ScriptedServer]:
    """Return a server in a thread that counts tokens when it is asked to, in an event of its own at the end."""
    ready, over = Event(), asyncio.Event()
    held: dict[str, Any] = {}

    async def serve() -> None:
        held["loop"] = asyncio.get_running_loop()
        async with scripted_server() as held["server"]:
            held["server"].respond = openai_answer
            ready.set()
            await over.wait()

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(5)
    yield held["server"]
    held["loop"].call_soon_threadsafe(over.set)
    thread.join(5)


def openai_answer(body: dict[str, Any]) -> Script:
    used = {"choices": [], **usage(20, 4)}
    last = [f"data: {json.dumps(used)}\n\n".encode()] if "stream_options" in body else []
    return [event("a b c"), 0.02, event(" d", "length"), *last, DONE]


def read(path: Path) -> Report:
    return msgspec.json.decode(path.read_bytes(), type=Report)


def test_mezzo_is_measured_with_every_workload(mezzo_server: LiveServer, call: Run, tmp_path: Path) -> None:
    files = ["--json", "run.json", "--plot", "run.svg"]
    sizes = ["--streams", "1,2", "--max-tokens", "12"]
    done = call(
        mezzo_server.url, "-w", "all", *sizes, *files, "--rate", "20", "--duration", "0.5", MEZZO_API_KEY=KEY
    )
    assert done.returncode == 0, done.stderr
    report = read(tmp_path / "run.json")
    assert (report.url, report.model, report.dialect) == (mezzo_server.url, MODEL, "mistral")
    assert report.is_complete
    assert [result.workload.name for result in report.results] == [
        "streams", "prefill", "chats", "interruption", "prediction", "arrivals",
    ]  # fmt: skip
    by_name = {load.name: load for load in report.loads()}
    assert by_name["chats"].requests == 64
    assert by_name["streams, 2"].completion_tokens == 4 * 12
    assert by_name["streams, 2"].cached_tokens == 4 * 4
    assert "prediction, with" in by_name
    assert report.num_failed == 0
    assert "streams, 2" in done.stdout
    assert "chats, total time" in done.stdout
    assert KEY not in (tmp_path / "run.json").read_text() + done.stdout + done.stderr
    assert (tmp_path / "run.svg").read_text().startswith("<svg")


def test_a_server_of_openais_kind_is_asked_to_count(
    openai_server: ScriptedServer, call: Run, tmp_path: Path
) -> None:
    done = call(
        openai_server.url, "--model", "m", "--key", "secret-key", "-w", "streams", "--streams", "2",
        "--requests-per-stream", "3", "--json", "run.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = read(tmp_path / "run.json")
    assert report.dialect == "openai"
    (load,) = report.loads()
    assert (load.requests, load.completion_tokens, load.prompt_tokens) == (6, 24, 120)
    assert load.tokens_per_event == 2.0
    assert load.itl_ms is not None
    assert load.itl_ms.p50 >= 20
    assert b"Bearer secret-key" in openai_server.heads[0]
    assert "dialect openai" in done.stderr


def test_a_dialect_that_is_told_is_not_tried_out(openai_server: ScriptedServer, call: Run) -> None:
    given = [openai_server.url, "--model", "m", "--key", "k", "-w", "prefill", "--no-warm-up"]
    assert call(*given, "--dialect", "openai").returncode == 0
    assert all("stream_options" in body for body in openai_server.bodies)
    done = call(*given, "--dialect", "mistral")
    assert done.returncode == 1
    assert "reports no token usage in its streams (dialect mistral)" in done.stderr


def test_failed_requests_are_told_and_counted_and_end_with_1(
    openai_server: ScriptedServer, call: Run, tmp_path: Path
) -> None:
    asked = iter(range(100))

    def respond(body: dict[str, Any]) -> Script:
        # The first two learn the dialect; of those measured, the second is cut and the third fails.
        return {3: [event("a"), None], 4: [b'data: {"error": "out of memory"}\n\n']}.get(
            next(asked), openai_answer(body)
        )

    openai_server.respond = respond
    options = ["-w", "streams", "--streams", "1", "--no-warm-up", "--json", "run.json"]
    done = call(openai_server.url, "--model", "m", "--key", "k", *options)
    assert done.returncode == 1
    (load,) = read(tmp_path / "run.json").loads()
    assert {kind: errors.count for kind, errors in load.errors.items()} == {
        "cut stream": 1,
        "error in the stream": 1,
    }
    assert (load.requests, load.num_failed, load.completion_tokens) == (4, 2, 8)
    assert "streams, 1: 1 of 4 requests failed, error in the stream, such as: " in done.stderr
    assert "out of memory" in done.stderr


def test_ones_own_prompts_are_sent(openai_server: ScriptedServer, call: Run, tmp_path: Path) -> None:
    lines = [{"messages": [{"role": "user", "content": text}]} for text in ("one", "two")]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = ["--prompts", "own.jsonl", "--streams", "1", "--no-warm-up", "--json", "run.json"]
    assert (
        call(openai_server.url, "--model", "m", "--key", "k", "--temperature", "0.5", *options).returncode
        == 0
    )
    sent = [body["messages"][0]["content"] for body in openai_server.bodies[2:]]
    assert sent == ["one", "two", "one", "two"]
    assert {body["temperature"] for body in openai_server.bodies} == {0.5}
    assert read(tmp_path / "run.json").own_prompts == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--plot", "a.png"], "--plot a.png: only .svg is drawn"),
        (["--json", "no/such/a.json"], "--json no/such/a.json: there is no such folder"),
        (["-w", "fast"], "--workload fast: there are streams"),
        (["--duration", "3"], "--duration: only requests at a --rate"),
        (["127.0.0.1:80"], "127.0.0.1:80 is not a URL"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    call: Run, args: list[str], message: str
) -> None:
    done = call(*args)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_server_that_is_not_there_is_told(call: Run, unused_tcp_port: int) -> None:
    done = call(f"http://127.0.0.1:{unused_tcp_port}", "--key", "k")
    assert done.returncode == 1
    assert f"nothing answers at http://127.0.0.1:{unused_tcp_port}" in done.stderr


def test_ctrl_c_shows_what_was_measured_until_then(
    openai_server: ScriptedServer, environment: dict[str, str], tmp_path: Path
) -> None:
    both_wait = Event()

    def respond(body: dict[str, Any]) -> Script:
        num_measured = len(openai_server.bodies) - 2
        if num_measured <= 6:  # four of the first load, two of the second
            return openai_answer(body)
        if num_measured == 8:
            both_wait.set()
        return [event("a"), 30.0]

    openai_server.respond = respond
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "mezzo", "bench", openai_server.url, "--model", "m", "--key", "k"),
            *("--streams", "1,2", "-w", "streams", "--no-warm-up", "--json", "run.json"),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path,
    ) as process:  # fmt: skip
        assert both_wait.wait(20)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopped: what is shown was measured until then" in stderr
    assert "Traceback" not in stderr
    report = read(tmp_path / "run.json")
    assert not report.is_complete
    (result,) = report.results
    assert not result.is_complete
    first, second = result.loads
    assert (first.requests, first.completion_tokens, first.unfinished) == (4, 16, 0)
    assert second.requests == 2
    assert second.unfinished == 2
    assert "streams, 1" in stdout
