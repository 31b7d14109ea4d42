"""From turns to summary, file and table."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from benchmarks.machine import Machine
from benchmarks.results import Results, ServerFacts, Turn
from benchmarks.serve import LoadFigures, LoadShape, Percentiles, PrefillFigures, RoundFigures

from benchmarks import results


def turn(round_number: int, server: str, throughput: float, busy: float = 0.0, num_errors: int = 0) -> Turn:
    load = LoadFigures(
        concurrency=8,
        requests=16,
        errors={"HTTP 503": num_errors} if num_errors else {},
        finish_reasons={"length": 16},
        prompt_tokens=1600,
        completion_tokens=2048,
        wall_s=2048 / throughput,
        client_cpu_s=0.1,
        completion_tokens_per_s=throughput,
        tokens_per_event=1.0,
        ttft_ms=Percentiles(100.0, 190.0, 199.0),
        itl_ms=None,
        e2e_ms=Percentiles(1000.0, 1900.0, 1990.0),
    )
    prefill = PrefillFigures(3, {}, 4500, 1500.0, Percentiles(1000.0, 1000.0, 1000.0))
    return Turn(round_number, server, busy, RoundFigures([load], prefill))


def record(turns: list[Turn]) -> Results:
    return Results(
        topic="serving",
        date="2026-01-31",
        commit="abc",
        command="python -m benchmarks.compare",
        machine=Machine("Some CPU (TM) 3", 2, 23.5, ["avx2"], "Linux 6"),
        libraries={},
        shape=LoadShape(),
        rounds=3,
        warm_up="",
        servers=[
            ServerFacts("mezzo", "mezzo 0.1, float32", "nano", None, 4.25, 812.4, 0, "The sea"),
            ServerFacts("other", "", "nano", None, None, None, 0, "The sea"),
        ],
        summary=results.summarise(turns),
        turns=turns,
    )


TURNS = [turn(1, "mezzo", 100.0), turn(1, "other", 50.0), turn(2, "mezzo", 400.0), turn(3, "mezzo", 200.0)]


def test_the_summary_is_median_and_quartiles_over_the_rounds() -> None:
    throughput = results.summarise(TURNS)[0]
    assert (throughput.figure, throughput.unit) == ("throughput, 8 streams", "tokens/s")
    # 100, 200, 400: the quartiles lie half-way between neighbours
    assert throughput.by_server["mezzo"] == results.Spread(200.0, 150.0, 300.0)
    assert throughput.by_server["other"] == results.Spread(50.0, 50.0, 50.0)


def test_a_figure_that_no_round_gave_has_no_row() -> None:
    assert not [row for row in results.summarise(TURNS) if row.figure.startswith("ITL")]


def test_the_table_shows_servers_side_by_side() -> None:
    lines = results.table(record(TURNS)).splitlines()
    assert lines[0] == "| | mezzo | other |"
    assert "| throughput, 8 streams (tokens/s) | 200 (150–300) | 50 (50–50) |" in lines
    assert "| start to first answer (s) | 4.25 | – |" in lines
    assert "| failed requests | 0 | 0 |" in lines
    assert any(
        "3 rounds; Some CPU (TM) 3, 2 cores, 23.5 GiB; 2026-01-31, commit abc" in line for line in lines
    )
    assert "Noisy" not in lines[-1]


def test_the_table_says_when_requests_failed_or_the_machine_was_busy() -> None:
    text = results.table(record([turn(1, "mezzo", 9.0, busy=0.7, num_errors=2), turn(1, "other", 9.0)]))
    assert "| failed requests | 2 | 0 |" in text
    assert "not idle before 1 of 2 turns" in text


def test_a_results_file_gives_the_same_table_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
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
