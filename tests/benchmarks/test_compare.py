"""A whole comparison, and the check that its servers see the same prompts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.compare import compare, prompt_token_offsets
from benchmarks.servers import ServerSpec

from benchmarks import records, results
from mezzo.bench.client import Target
from mezzo.bench.workloads.prediction import Prediction
from mezzo.bench.workloads.streams import Streams
from tests.bench.events import DONE, event, usage
from tests.bench.scripted_server import ScriptedServer

# Counts the words of a message as its tokens, plus those of a template; answers with two tokens.
SERVER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = len(body["messages"][0]["content"].split()) + int(sys.argv[2])
        usage = {"prompt_tokens": words, "completion_tokens": 2}
        first = {"choices": [{"delta": {"content": "so"}, "finish_reason": None}]}
        last = {"choices": [{"delta": {"content": " it"}, "finish_reason": "length"}], "usage": usage}
        events = [json.dumps(first), json.dumps(last), "[DONE]"]
        self.send_response(200)
        self.end_headers()
        self.wfile.write("".join(f"data: {event}\\n\\n" for event in events).encode())
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_comparison_measures_every_server_in_every_round_and_records_it(
    tmp_path: Path, unused_tcp_port_factory: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    specs = []
    for name, template_tokens in (("a", 3), ("b", 5)):
        port = unused_tcp_port_factory()
        start = shlex.join([sys.executable, str(script), str(port), str(template_tokens), "KEY"])
        specs.append(ServerSpec(name, f"http://127.0.0.1:{port}", "KEY", "nano", f"{name} 1.0", start))
    workloads = (Streams(streams=(1, 2), max_tokens=2), Prediction(requests=1))

    record = compare(specs, workloads, seed=1, rounds=1, starts=1, topic="test")

    assert [turn.server for turn in record.turns] == ["b", "a"]
    loads = {load.name: load for result in record.turns[1].results for load in result.loads}
    assert [load.requests for load in loads.values()] == [4, 4, 1]
    assert loads["streams, 1"].completion_tokens == 8
    assert results.count_errors(record) == {"a": 0, "b": 0}
    a, b = record.servers
    assert (a.prompt_tokens_offset, b.prompt_tokens_offset) == (0, 2)
    assert a.sample_text == "so it"
    assert len(a.starts_s) == 1
    assert a.memory_mib is not None
    assert a.start_command is not None
    assert "KEY" not in a.start_command
    assert str(tmp_path) not in a.start_command
    rows = {row.figure: row for row in record.summary}
    assert rows["start to first token"].by_server.keys() == rows["memory"].by_server.keys() == {"a", "b"}
    assert rows["throughput, 2 streams"].better == "higher"
    text = results.table(record)
    assert "a, prediction: no answer was long enough to predict it with changes." in text
    assert "| a / best other |" in text
    assert "× b |" in text
    assert results.read(results.write(record)) == record


async def test_servers_that_count_differently_are_not_compared(
    scripted: ScriptedServer, other_scripted: ScriptedServer
) -> None:
    scripted.script = other_scripted.script = [event("a", "length", **usage(100, 1)), DONE]
    targets = [Target("one", scripted.url, "nano"), Target("two", other_scripted.url, "nano")]
    assert await prompt_token_offsets(targets, seed=1) == {"one": 0, "two": 0}

    # The second of the three prompts has another length for this server.
    odd_one = [event("a", "length", **usage(101, 1)), DONE]
    other_scripted.scripts = [other_scripted.script, odd_one]
    with pytest.raises(RuntimeError, match=r"two counts \[100, 101, 100\] tokens where one counts"):
        await prompt_token_offsets(targets, seed=1)
