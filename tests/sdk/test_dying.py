"""Processes that are killed: the engine under load, the server by its manager, the server without a word."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mistralai.client import Mistral

from tests.sdk.conftest import StartServer
from tests.sdk.serving import ENDLESS, KEY, MODEL, SUBJECTS, Serving, Streamed, chat, stream, wait_until


def run_streams(server: Serving, pool: ThreadPoolExecutor, count: int, **fields: Any) -> list[Any]:
    """Start streams and return their futures once each has text."""
    running = threading.Semaphore(0)

    def on_chunk(streamed: Streamed) -> None:
        if len(streamed.chunks) == 3:
            running.release()

    prompts = [ENDLESS.format(SUBJECTS[i % len(SUBJECTS)]) for i in range(count)]
    futures = [pool.submit(stream, server, chat(prompt, **fields), on_chunk) for prompt in prompts]
    for _ in futures:
        assert running.acquire(timeout=60)
    return futures


class TestEngine:
    def test_killed_under_load_ends_requests_with_an_error_and_comes_back(self, start: StartServer) -> None:
        server = start()
        (engine,) = server.engine_pids()
        with ThreadPoolExecutor(9) as pool:
            streams = run_streams(server, pool, 8, max_tokens=2000)
            plain = pool.submit(server.post, chat(ENDLESS.format("horse"), max_tokens=2000))
            wait_until(lambda: server.metric("mezzo_sequences_running") == 9, 10)
            os.kill(engine, signal.SIGKILL)
            for future in streams:
                streamed = future.result(30)
                assert streamed.finish_reason == "error"
                assert streamed.ended
                usage = streamed.chunks[-1]["usage"]
                assert usage["completion_tokens"] >= 1
                assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
            broken = plain.result(30)
            assert broken.status_code == 503
            assert broken.json()["code"] == "3800"

        with Mistral(api_key=KEY, server_url=server.url) as client:
            answer = client.chat.complete(
                model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=4
            )
        assert answer.usage.completion_tokens > 0
        assert server.process.poll() is None
        assert server.metric("mezzo_engine_restarts_total") == 1
        (successor,) = server.engine_pids()
        assert successor != engine

        # A stream that is left half way, by an engine whose counts are its own.
        with server.client.stream(
            "POST", "/v1/chat/completions", json=chat(ENDLESS.format("ship"), max_tokens=2000, stream=True)
        ) as response:
            seen = sum(
                1 for _, line in zip(range(20), response.iter_lines(), strict=False) if "content" in line
            )
        wait_until(lambda: server.is_idle() and len(server.books()[0]) == 11, 10)
        records, found = server.books()
        assert [record.status for record in records] == ["failed"] * 9 + ["finished", "aborted"]
        assert sum(record.amount for record in records[:9]) == 0
        for record in records[9:]:
            assert record.amount == record.prompt_tokens * 400 + record.completion_tokens * 2000
        assert records[9].completion_tokens == answer.usage.completion_tokens
        assert records[10].completion_tokens >= seen - 1
        assert found.findings == ()
        assert found.num_engine_runs == 2
        assert not [process for process in server.processes() if "Z" in process.state]
        wait_until(server.is_idle)

        # And once more, at rest: who asks while it loads waits for it instead of being refused.
        os.kill(successor, signal.SIGKILL)
        wait_until(lambda: server.client.get("/readyz").status_code == 503)
        assert server.post(chat()).status_code == 200
        assert server.metric("mezzo_engine_restarts_total") == 2
        assert server.client.get("/readyz").status_code == 200


class TestServer:
    def test_sigterm_lets_streams_finish_and_leaves_nothing(self, start: StartServer) -> None:
        server = start()
        with ThreadPoolExecutor(4) as pool:
            streams = run_streams(server, pool, 4, max_tokens=40)
            server.process.terminate()
            results = [future.result(60) for future in streams]
        assert [result.finish_reason for result in results] == ["length"] * 4
        assert all(result.ended for result in results)
        assert server.process.wait(30) == 0
        assert server.processes() == []
        assert "Traceback" not in server.log.read_text()

    def test_sigkill_takes_the_engine_along(self, start: StartServer) -> None:
        server = start()
        with ThreadPoolExecutor(1) as pool:
            (cut,) = run_streams(server, pool, 1, max_tokens=4000)
            assert len(server.engine_pids()) == 1
            server.process.kill()
            server.process.wait(10)
            wait_until(lambda: not server.engine_pids(), 8)
            assert cut.exception(10) is not None
