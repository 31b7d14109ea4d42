"""The file, the tables and the picture of a run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import msgspec
import pytest
from rich.console import Console

from mezzo.bench.client import Failure, Sample
from mezzo.bench.figures import Figure, LoadFigures, figures_of
from mezzo.bench.plot import svg
from mezzo.bench.report import Report, print_report, warnings_of, write_json
from mezzo.bench.run import Result
from mezzo.bench.workloads.streams import Streams


def load(name: str = "streams, 8", *, client_cpu_s: float = 0.1, unfinished: int = 0) -> LoadFigures:
    good = Sample(
        0.0, [0.25, 0.5, 1.0], finish_reason="stop", prompt_tokens=1200, cached_tokens=64, completion_tokens=3,
        has_usage=True, e2e_s=1.0,
    )  # fmt: skip
    bad = Sample(failure=Failure("HTTP 503", "the queue\nis full"))
    return figures_of(
        name, [good, bad], wall_s=2.0, client_cpu_s=client_cpu_s, streams=8, unfinished=unfinished
    )


def report(*loads: LoadFigures) -> Report:
    figures = [Figure("throughput, 8 streams", "tokens/s", 1.5, "higher")]
    return Report(
        mezzo="0.1.0",
        started_at="2026-01-31T12:00:00+00:00",
        url="http://127.0.0.1:8000",
        model="nano",
        dialect="mistral",
        temperature=0.0,
        seed=1,
        own_prompts=0,
        warm_up=True,
        is_complete=True,
        results=[Result(Streams(streams=(8,)), True, list(loads), figures, [])],
    )


def test_the_file_is_what_its_schema_says_and_reads_back(tmp_path: Path) -> None:
    written = report(load())
    write_json(written, tmp_path / "run.json")
    text = (tmp_path / "run.json").read_bytes()
    jsonschema.Draft202012Validator(msgspec.json.schema(Report)).validate(json.loads(text))
    assert msgspec.json.decode(text, type=Report) == written
    document: dict[str, Any] = json.loads(text)
    assert document["format"] == "mezzo-bench/1"
    (result,) = document["results"]
    assert result["workload"] == {
        "name": "streams", "streams": [8], "requests_per_stream": 2, "min_requests": 4, "max_tokens": 128,
    }  # fmt: skip
    (only,) = result["loads"]
    assert only["errors"] == {"HTTP 503": {"count": 1, "example": "the queue\nis full"}}
    assert only["ttft_ms"] == {"p50": 250.0, "p90": 250.0, "p95": 250.0, "p99": 250.0, "max": 250.0}


def test_the_tables_show_figures_counts_and_times() -> None:
    output = io.StringIO()
    print_report(report(load(), load("interruption, long prompt")), Console(file=output, width=80))
    lines = [line.split() for line in output.getvalue().splitlines()]
    assert ["throughput,", "8", "streams", "1.5", "tokens/s"] in lines
    assert ["streams,", "8", "2", "1", "1,200", "64", "3"] in lines
    assert ["streams,", "8", "1.5", "2.67", "1", "5%"] in lines
    assert "…" not in output.getvalue()
    assert ["streams,", "8", "TTFT", "250", "250", "250", "250", "250"] in lines
    assert ["ITL", "375", "475", "488", "498", "500"] in lines
    assert ["end", "to", "end", "1,000", "1,000", "1,000", "1,000", "1,000"] in lines


def test_what_makes_figures_doubtful_is_said() -> None:
    assert list(warnings_of([load(client_cpu_s=0.39)])) == [
        "streams, 8: 1 of 2 requests failed, HTTP 503, such as: the queue is full"
    ]
    (_, unfinished, busy) = warnings_of([load(client_cpu_s=0.9, unfinished=3)])
    assert unfinished == "streams, 8: 3 requests were still running and do not count"
    assert busy.startswith("streams, 8: this client took 45% of a core")


class TestPlot:
    NAMESPACE = "{http://www.w3.org/2000/svg}"

    def test_each_load_has_a_curve_in_each_panel_and_a_line_in_the_legend(self) -> None:
        root = ElementTree.fromstring(svg([load("one"), load("two & more")], "nano at <here>"))
        curves = root.findall(f"{self.NAMESPACE}polyline")
        assert len(curves) == 6
        texts = [text.text or "" for text in root.iter(f"{self.NAMESPACE}text")]
        assert "nano at <here>" in texts
        assert "two & more: 2 tokens/s, 2 requests, 1 failed" in texts
        # Later is further to the right, and a higher percentile further up.
        gaps = [tuple(map(float, point.split(","))) for point in curves[2].attrib["points"].split()]
        assert gaps == sorted(gaps, key=lambda point: point[0])
        assert gaps == sorted(gaps, key=lambda point: -point[1])

    @pytest.mark.parametrize("loads", [[], [figures_of("none", [], wall_s=1.0, client_cpu_s=0.0)]])
    def test_nothing_measured_is_an_empty_picture(self, loads: list[LoadFigures]) -> None:
        root = ElementTree.fromstring(svg(loads, "empty"))
        assert not root.findall(f"{self.NAMESPACE}polyline")
