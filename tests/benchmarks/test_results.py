"""From turns to summary, file and table."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import pytest
from benchmarks.machine import Machine
from benchmarks.results import Results, ServerFacts, SummaryRow, Turn

from benchmarks import records, results
from mezzo.bench.client import Failure, Sample
from mezzo.bench.figures import Figure, figures_of
from mezzo.bench.run import Result
from mezzo.bench.workloads.streams import Streams

WORKLOAD = Streams(streams=(8,))


def turn(
    round_number: int,
    server: str,
    throughput: float,
    *,
    busy: float = 0.0,
    num_errors: int = 0,
    tokens: int = 2048,
    client_cpu_s: float = 0.0,
    note: str | None = None,
) -> Turn:
    good = Sample(0.0, [0.1], completion_tokens=tokens, has_usage=True, e2e_s=1.0)
    bad = [Sample(failure=Failure("HTTP 503")) for _ in range(num_errors)]
    load = figures_of("streams, 8", [good, *bad], wall_s=1.0, client_cpu_s=client_cpu_s, streams=8)
    figures = [
        Figure("throughput, 8 streams", "tokens/s", throughput, "higher"),
        Figure("TTFT p50, 8 streams", "ms", 1000 / throughput, "lower"),
    ]
    notes = [note] if note else []
    return Turn(round_number, server, busy, [Result(WORKLOAD, True, [load], figures, notes)])


def record(turns: list[Turn]) -> Results:
    servers = [
        ServerFacts("mezzo", "mezzo 0.1, float32", "nano", None, [4.25, 5.25], 812.4, 0, "The sea"),
        ServerFacts("other", "", "nano", None, [], 1000.0, 0, "The sea"),
    ]
    return Results(
        topic="serving",
        date="2026-01-31",
        commit="abc",
        command="python -m benchmarks.compare",
        machine=Machine("Some CPU (TM) 3", 2, 23.5, ["avx2"], "Linux 6"),
        libraries={},
        workloads=[WORKLOAD],
        seed=1,
        rounds=3,
        warm_up="",
        servers=servers,
        summary=[*results.summarise(turns), *results.fact_rows(servers)],
        turns=turns,
    )


TURNS = [turn(1, "mezzo", 100.0), turn(1, "other", 50.0), turn(2, "mezzo", 400.0), turn(3, "mezzo", 200.0)]


def test_the_summary_is_median_and_quartiles_over_the_rounds() -> None:
    throughput = results.summarise(TURNS)[0]
    assert (throughput.figure, throughput.unit) == ("throughput, 8 streams", "tokens/s")
    # 100, 200, 400: the quartiles lie half-way between neighbours
    assert throughput.by_server["mezzo"] == results.Spread(200.0, 150.0, 300.0)
    assert throughput.by_server["other"] == results.Spread(50.0, 50.0, 50.0)


def test_the_table_shows_servers_side_by_side_and_how_far_ahead_the_first_is() -> None:
    lines = results.table(record(TURNS)).splitlines()
    assert lines[0] == "| | mezzo | other | mezzo / best other |"
    assert "| throughput, 8 streams (tokens/s) | 200 (150–300) | 50 (50–50) | 4.00 × other |" in lines
    assert "| TTFT p50, 8 streams (ms) | 5 (3.75–7.5) | 20 (20–20) | 4.00 × other |" in lines
    assert "| start to first token (s) | 4.75 (4.5–5) | – | – |" in lines
    assert "| memory (MiB) | 812 (812–812) | 1,000 (1,000–1,000) | 1.23 × other |" in lines
    assert "| failed requests | 0 | 0 |  |" in lines
    assert any(
        "3 rounds; Some CPU (TM) 3, 2 cores, 23.5 GiB; 2026-01-31, commit abc" in line for line in lines
    )
    assert "Noisy" not in lines[-1]


@pytest.mark.parametrize(("better", "best", "ratio"), [("higher", "b", 0.5), ("lower", "c", 0.25)])
def test_the_ratio_is_to_the_best_of_the_others(
    better: Literal["higher", "lower"], best: str, ratio: float
) -> None:
    by_server = {name: results.spread([value]) for name, value in (("a", 2.0), ("b", 4.0), ("c", 0.5))}
    row = SummaryRow("figure", "s", by_server, better)
    assert results.ratio_to_best(row, "a") == (ratio, best)
    assert results.ratio_to_best(row, "d") is None


def test_the_table_says_what_servers_lack_and_where_they_did_other_work() -> None:
    turns = [
        turn(1, "mezzo", 9.0, tokens=1000),
        turn(1, "other", 9.0, tokens=900, client_cpu_s=0.3, note="takes no prediction"),
        turn(2, "other", 9.0, tokens=10, note="takes no prediction"),
    ]
    lines = results.table(record(turns)).splitlines()
    assert lines.count("other, streams: takes no prediction.") == 1
    assert "other, streams: the client took more than 20% of a core during streams, 8." in lines
    assert "Not the same number of completion tokens in streams, 8: mezzo 1,000, other 910." in lines
    assert results.unequal_work(record([turns[0], turn(1, "other", 9.0, tokens=960)])) == []


def test_the_table_says_when_requests_failed_or_the_machine_was_busy() -> None:
    text = results.table(record([turn(1, "mezzo", 9.0, busy=0.7, num_errors=2), turn(1, "other", 9.0)]))
    assert "| failed requests | 2 | 0 |  |" in text
    assert "not idle before 1 of 2 turns" in text


def test_a_results_file_gives_the_same_table_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    first = results.write(record(TURNS))
    second = results.write(record(TURNS))
    assert first.name == "2026-01-31-some-cpu-tm-3-2c-serving.json"
    assert second.name == "2026-01-31-some-cpu-tm-3-2c-serving-2.json"
    assert results.table(results.read(first)) == results.table(record(TURNS))


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"topic": "serving"}')
    with pytest.raises(msgspec.ValidationError):
        results.read(path)
