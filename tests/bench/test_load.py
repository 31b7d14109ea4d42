"""How requests are sent, and what is reckoned from their samples."""

from __future__ import annotations

import itertools
import time

import pytest

from mezzo.bench.client import Failure, Sample, Target, user_request
from mezzo.bench.figures import decode_rate, figures_of, percentiles_ms
from mezzo.bench.load import Loads, closed_loop, open_loop, poisson_arrivals
from tests.bench.events import DONE, event, usage
from tests.bench.scripted_server import ScriptedServer


def target(server: ScriptedServer) -> Target:
    return Target("scripted", server.url, "nano")


def sample(event_times_s: list[float], e2e_s: float, *, completion_tokens: int) -> Sample:
    return Sample(
        0.0,
        event_times_s,
        finish_reason="length",
        prompt_tokens=10,
        cached_tokens=4,
        completion_tokens=completion_tokens,
        has_usage=True,
        e2e_s=e2e_s,
    )


def test_figures_of_a_known_schedule() -> None:
    """Two answers of four events each, two tokens an event; and two that failed, which count nowhere else."""
    samples = [
        sample([1.0, 1.1, 1.2, 1.3], 1.5, completion_tokens=8),
        sample([2.0, 2.2, 2.4, 2.6], 2.5, completion_tokens=8),
        Sample(
            event_times_s=[9.0], failure=Failure("HTTP 503", "full"), has_usage=True, completion_tokens=99
        ),
        Sample(event_times_s=[9.0], finish_reason="stop"),
    ]
    figures = figures_of("known", samples, wall_s=4.0, client_cpu_s=0.1, streams=2, unfinished=1)
    assert (figures.requests, figures.num_failed, figures.unfinished) == (4, 2, 1)
    assert figures.errors["HTTP 503"].example == "full"
    assert figures.errors["no usage"].count == 1
    assert (figures.prompt_tokens, figures.cached_tokens, figures.completion_tokens) == (20, 8, 16)
    assert figures.completion_tokens_per_s == 4.0
    assert figures.prompt_tokens_per_s == 5.0
    assert figures.tokens_per_event == 2.0
    # 6 tokens in 0.3 s and 6 in 0.6 s: 20 and 10 a second
    assert figures.decode_tokens_per_s == pytest.approx(15.0)
    assert figures.ttft_ms is not None
    ttft = (figures.ttft_ms.p50, figures.ttft_ms.p90, figures.ttft_ms.p99, figures.ttft_ms.max)
    assert ttft == pytest.approx((1500, 1900, 1990, 2000))
    assert figures.itl_ms is not None
    assert figures.itl_ms.p50 == pytest.approx(150)
    assert figures.itl_ms.max == pytest.approx(200)
    assert figures.finish_reasons == {"length": 2}
    assert figures.client_cpu == pytest.approx(0.025)


def test_percentiles_are_interpolated() -> None:
    found = percentiles_ms([0.004, 0.001, 0.002, 0.003, 0.005])
    assert found is not None
    assert (found.p50, found.p90, found.p95, found.p99, found.max) == pytest.approx(
        (3.0, 4.6, 4.8, 4.96, 5.0)
    )
    assert percentiles_ms([]) is None


def test_one_event_has_no_decode_rate() -> None:
    assert decode_rate(sample([1.0], 2.0, completion_tokens=8)) is None


async def test_a_closed_loop_keeps_its_streams_busy(scripted: ScriptedServer) -> None:
    scripted.script = [0.02, event("two tokens at once", "length", **usage(10, 2)), DONE]
    load = Loads().begin("three", 7, streams=3)
    await closed_loop(load, target(scripted), [user_request(f"{i}", 2) for i in range(7)], streams=3)
    figures = load.figures()
    assert (figures.requests, figures.completion_tokens, scripted.max_open) == (7, 14, 3)
    assert figures.completion_tokens_per_s == pytest.approx(14 / figures.wall_s)
    assert figures.itl_ms is None  # one event per request: there is no gap
    assert figures.ttft_ms is not None
    assert figures.ttft_ms.p50 >= 20
    time.sleep(0.02)  # noqa: ASYNC251
    assert load.figures().wall_s == figures.wall_s  # its clock has stopped


async def test_an_open_loop_counts_from_when_a_request_was_due(scripted: ScriptedServer) -> None:
    scripted.script = [0.4, event("a", "stop", **usage(1, 1)), DONE]
    load = Loads().begin("open", 20, rate=100)
    times = [i / 100 for i in range(20)]
    await open_loop(load, target(scripted), [user_request(f"{i}", 2) for i in range(20)], times)
    assert scripted.max_open >= 8  # nobody waited for an answer
    # The second request is due a hundredth after the first, whenever it was really sent.
    due = sorted(each.started_at for each in load.sent)
    assert [late - due[0] for late in due] == pytest.approx(times)
    assert all(each.ttft_s >= 0.4 for each in load.samples)


async def test_what_the_client_holds_up_is_counted(scripted: ScriptedServer) -> None:
    scripted.script = [event("a", "stop", **usage(1, 1)), DONE]
    load = Loads().begin("late", 1)
    await load.send(target(scripted), user_request("Hi", 1), due_at=time.perf_counter() - 3)
    assert load.samples[0].ttft_s >= 3


def test_poisson_arrivals_are_fixed_by_their_seed_and_come_at_their_rate() -> None:
    times = poisson_arrivals(50, 100, "a")
    assert times == poisson_arrivals(50, 100, "a") != poisson_arrivals(50, 100, "b")
    assert times == sorted(times)
    assert times[-1] < 100
    # 5,000 expected, and four standard deviations of sqrt(5000)
    assert abs(len(times) - 5000) < 4 * 71
    gaps = [after - before for before, after in itertools.pairwise(times)]
    # Of an exponential distribution: 63 of 100 are below the mean. A steady rate would have half of them.
    assert sum(gap < 1 / 50 for gap in gaps) / len(gaps) == pytest.approx(0.632, abs=0.03)
