"""What a load counts, and what it makes of it."""

from __future__ import annotations

import pytest
from benchmarks.client import Target
from benchmarks.serve import LoadShape, find_dialect, measure_round, percentiles_ms, warm_up

from tests.benchmarks.conftest import ScriptedServer
from tests.benchmarks.events import DONE, event, usage

SHAPE = LoadShape(concurrency=(1, 3), requests_per_stream=2, min_requests=4, max_tokens=2, prefill_requests=2)


def target(server: ScriptedServer) -> Target:
    return Target("scripted", server.url, "nano")


async def test_a_round_keeps_the_streams_busy_and_counts_tokens_from_usage(scripted: ScriptedServer) -> None:
    scripted.script = [0.02, event("two tokens at once", "length", **usage(10, 2)), DONE]
    figures = await measure_round(target(scripted), SHAPE, round_number=1)
    one, three = figures.loads
    assert (one.concurrency, one.requests, one.completion_tokens) == (1, 4, 8)
    assert (three.concurrency, three.requests, three.completion_tokens) == (3, 6, 12)
    assert scripted.max_open == 3
    assert three.completion_tokens_per_s == three.completion_tokens / three.wall_s
    assert three.tokens_per_event == 2.0
    assert three.itl_ms is None  # one event per request: there is no gap
    assert one.ttft_ms is not None
    assert one.ttft_ms.p50 >= 20
    assert figures.prefill.requests == 2
    assert figures.prefill.tokens_per_s <= 10 / 0.02


async def test_every_prompt_of_every_round_is_new(scripted: ScriptedServer) -> None:
    scripted.script = [event("a", "stop", **usage(1, 1)), DONE]
    for round_number in (1, 2):
        await measure_round(target(scripted), SHAPE, round_number)
    prompts = [body["messages"][0]["content"] for body in scripted.bodies]
    assert len(prompts) == 2 * (2 + 4 + 6)
    assert len({prompt.split(":")[0] for prompt in prompts}) == len(prompts)


async def test_a_round_gives_every_server_the_same_prompts(scripted: ScriptedServer) -> None:
    scripted.script = [event("a", "stop", **usage(1, 1)), DONE]
    sequential = LoadShape(concurrency=(1,), prefill_requests=1)
    await measure_round(target(scripted), sequential, 1)
    first, scripted.bodies = scripted.bodies, []
    await measure_round(target(scripted), sequential, 1)
    assert scripted.bodies == first


async def test_failed_requests_are_counted_and_left_out(scripted: ScriptedServer) -> None:
    scripted.script = [event("a", None, **usage(5, 1)), None]
    figures = await measure_round(target(scripted), SHAPE, round_number=1)
    assert figures.loads[0].errors == {"the connection ended before the stream did": 4}
    assert figures.loads[0].completion_tokens == 0
    assert figures.loads[0].ttft_ms is None
    assert figures.prefill.errors == {"the connection ended before the stream did": 2}


async def test_a_server_that_fails_its_warm_up_is_not_measured(scripted: ScriptedServer) -> None:
    scripted.status = b"503 Service Unavailable"
    with pytest.raises(RuntimeError, match=r"scripted: warm-up failed.*HTTP 503"):
        await warm_up(target(scripted), SHAPE)


async def test_the_dialect_is_found_by_asking_plainly_first(scripted: ScriptedServer) -> None:
    scripted.script = [event("a", "stop", **usage(5, 1)), DONE]
    found, sample = await find_dialect(target(scripted))
    assert not found.include_usage
    assert sample.text == "a"
    assert "stream_options" not in scripted.bodies[0]


async def test_a_server_that_never_counts_tokens_is_refused(scripted: ScriptedServer) -> None:
    scripted.script = [event("a", "stop"), DONE]
    with pytest.raises(RuntimeError, match="reports no token usage"):
        await find_dialect(target(scripted))
    assert [("stream_options" in body) for body in scripted.bodies] == [False, True]


def test_percentiles_are_interpolated() -> None:
    found = percentiles_ms(iter([0.004, 0.001, 0.002, 0.003, 0.005]))
    assert found is not None
    assert (found.p50, found.p95, found.p99) == pytest.approx((3.0, 4.8, 4.96))
    assert percentiles_ms(iter([])) is None
