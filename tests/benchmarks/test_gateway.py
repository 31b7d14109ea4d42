"""Short requests, the upstream that does nothing, and a whole comparison of gateways."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
from benchmarks.gateway import GatewayResults, GatewayTurn
from benchmarks.gateway_servers import make_specs
from benchmarks.noop_upstream import NoopProtocol
from benchmarks.short_requests import ShortFigures, closed_loop, open_loop

from benchmarks import gateway, noop_upstream, results
from mezzo.bench.client import Target, stream_chat, user_request
from mezzo.bench.figures import Percentiles
from tests.bench.scripted_server import ScriptedServer


@pytest.fixture
async def upstream() -> AsyncIterator[Target]:
    server = await asyncio.get_running_loop().create_server(NoopProtocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield Target("upstream", f"http://127.0.0.1:{port}", noop_upstream.MODEL, "a-key")
    server.close()


class TestNoopUpstream:
    async def test_it_answers_in_one_piece_and_as_a_stream(self, upstream: Target) -> None:
        async with httpx.AsyncClient(base_url=upstream.url, trust_env=False) as client:
            answer = await client.post("/v1/chat/completions", json={"messages": []})
            assert answer.json()["choices"][0]["message"]["content"] == "One two three four"
            assert answer.json()["usage"]["completion_tokens"] == 4
            assert (await client.get("/v1/models")).json()["data"][0]["id"] == noop_upstream.MODEL
            assert (await client.get("/v1/other")).status_code == 404
            assert (await client.post("/v1/chat/completions", content=b"{")).status_code == 400
        sample = await stream_chat(msgspec.structs.replace(upstream, dialect="openai"), user_request("Hi", 8))
        assert (sample.failure, sample.text, sample.completion_tokens) == (None, "One two three four", 4)
        assert len(sample.event_times_s) == 4
        plain = await stream_chat(upstream, user_request("Hi", 8))
        assert (plain.failure, plain.has_usage) == (None, False)  # not asked for usage, as OpenAI's servers


class TestLoads:
    async def test_a_closed_loop_keeps_its_connections_busy(self, upstream: Target) -> None:
        figures = await closed_loop(upstream, connections=3, seconds=0.2)
        assert figures.requests > 20
        assert figures.errors == {}
        assert figures.requests_per_s == pytest.approx(figures.requests / figures.wall_s)
        assert figures.latency_ms is not None
        assert 0 < figures.latency_ms.p50 < 100
        assert figures.server_timing_ms == {}

    async def test_an_open_loop_sends_at_its_rate_and_counts_from_when_it_was_due(
        self, scripted: ScriptedServer
    ) -> None:
        scripted.script = [0.2, b'{"choices": []}']
        figures = await open_loop(Target("slow", scripted.url, "m"), rate=50, seconds=0.5)
        assert figures.requests == 25
        assert figures.connections == scripted.max_open >= 8  # more than a loop that waits would have needed
        assert 0.5 < figures.wall_s < 3
        assert figures.latency_ms is not None
        assert figures.latency_ms.p50 >= 200

    async def test_what_the_server_says_of_its_parts_is_summed_up(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                while await reader.readuntil(b"}]"):
                    body = b'{"choices": []}'
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nServer-Timing: auth;dur=0.5, open;dur=1.25\r\n"
                        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
                    )
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            figures = await closed_loop(
                Target("timed", f"http://127.0.0.1:{port}", "m"), connections=1, seconds=0.05
            )
        assert {name: timing.p50 for name, timing in figures.server_timing_ms.items()} == {
            "auth": 0.5,
            "open": 1.25,
            "all parts": 1.75,
        }

    @pytest.mark.parametrize(
        ("script", "status", "error"),
        [
            ([b"{}"], b"503 Service Unavailable", "HTTP 503: {}"),
            ([b"not an answer"], b"200 OK", "HTTP 200: not an answer"),
            ([b"half", None], b"200 OK", "the connection ended before the answer did"),
        ],
    )
    async def test_failed_requests_are_counted_and_left_out(
        self, scripted: ScriptedServer, script: list[bytes | float | None], status: bytes, error: str
    ) -> None:
        scripted.script, scripted.status = script, status
        figures = await closed_loop(Target("bad", scripted.url, "m"), connections=1, seconds=0.05)
        assert figures.requests == 0
        assert error in figures.errors
        assert figures.latency_ms is None

    async def test_a_server_that_is_not_there_is_an_error(self, unused_tcp_port: int) -> None:
        target = Target("gone", f"http://127.0.0.1:{unused_tcp_port}", "m")
        figures = await open_loop(target, rate=20, seconds=0.1)
        assert sum(figures.errors.values()) == 2
        assert "ConnectionRefusedError" in next(iter(figures.errors))


def load(rate: float | None, requests_per_s: float, connections: int = 1) -> ShortFigures:
    return ShortFigures(
        connections=connections,
        rate=rate,
        requests=10,
        errors={},
        wall_s=1,
        client_cpu_s=0.1,
        requests_per_s=requests_per_s,
        latency_ms=Percentiles(1.0, 1.5, 2.0, 3.0, 4.0),
        server_timing_ms={},
    )


def test_the_summary_has_each_load_by_name() -> None:
    turns = [
        GatewayTurn(1, "upstream", 0.0, [load(None, 5000.0), load(None, 9000.0, 8)], [0.1, 0.1]),
        GatewayTurn(1, "mezzo", 0.3, [load(None, 500.0), load(None, 900.0, 8), load(100.0, 99.0)], [1, 2, 3]),
    ]
    rows = {row.figure: row.by_server for row in gateway.summarise(turns)}
    assert rows["throughput, 1 connection"]["upstream"].median == 5000
    assert rows["throughput, 8 connections"]["mezzo"].median == 900
    assert rows["latency p99, 100 requests/s"]["mezzo"].median == 3
    assert rows["processor time of a request, 100 requests/s"].keys() == {"mezzo"}
    assert results.noisy_turns(turns) == 1


@pytest.mark.slow
def test_a_comparison_starts_every_gateway_and_measures_it_in_every_round(tmp_path: Path) -> None:
    """LiteLLM's place is taken by a script with its options: the upstream once more."""
    stand_in = tmp_path / "bin" / "litellm"
    stand_in.parent.mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\necho 1.2.3\n")
    stand_in.write_text(
        "#!/bin/sh\n"
        'test "$1" = --config && test -f "$2" && test "$5" = --port || exit 1\n'
        f'exec {shlex.quote(sys.executable)} -m benchmarks.noop_upstream --port "$6"\n'
    )
    for script in stand_in.parent.iterdir():
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    specs = make_specs(tmp_path, litellm=stand_in)
    config = json.loads((tmp_path / "litellm.yaml").read_text())
    assert config["model_list"][0]["litellm_params"]["api_base"] == f"{specs[0].url}/v1"

    record = gateway.compare(specs, rounds=1, seconds=0.3, rate=20)

    assert [server.name for server in record.servers] == ["upstream", "litellm", "mezzo"]
    assert "LiteLLM 1.2.3" in record.servers[1].about
    by_server = {turn.server: turn for turn in record.turns}
    assert [load.connections for load in by_server["upstream"].loads] == [1, 8]
    (*closed, opened) = by_server["mezzo"].loads
    assert [load.rate for load in closed] == [None, None]
    assert (opened.rate, opened.requests) == (20, 6)
    assert {"auth", "limits", "open", "settle", "all parts"} <= opened.server_timing_ms.keys()
    assert all(load.errors == {} for turn in record.turns for load in turn.loads)
    assert all(ms > 0 for turn in record.turns if turn.server == "mezzo" for ms in turn.server_cpu_ms)
    # Keys and folders of this machine are in no record.
    text = msgspec.json.encode(record).decode()
    assert not any(secret in text for secret in ("benchmark-0123456789", str(tmp_path)))
    assert msgspec.json.decode(text, type=GatewayResults) == record
    table = gateway.table(record)
    assert "| throughput, 8 connections (requests/s) |" in table
    assert "| all parts p99, 20 requests/s (ms) | – | – |" in table
