"""Options to workloads: nothing that was given is without effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from mezzo.bench.client import Message
from mezzo.bench.plan import Choice, PlanError, choose_workloads, read_own_prompts
from mezzo.bench.workloads.arrivals import Arrivals
from mezzo.bench.workloads.prefill import Prefill
from mezzo.bench.workloads.streams import Streams


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (Choice(), ["streams", "prefill"]),
        (Choice(names=["all"]), ["streams", "prefill", "chats", "interruption", "prediction"]),
        (Choice(names=["chats", "prefill", "chats"]), ["chats", "prefill"]),
        (Choice(rate=2.0), ["arrivals"]),
        (Choice(names=["prefill"], rate=2.0), ["prefill", "arrivals"]),
        (Choice(has_own_prompts=True), ["streams"]),
        (Choice(has_own_prompts=True, rate=2.0), ["arrivals"]),
    ],
)
def test_what_is_chosen_is_measured(choice: Choice, names: list[str]) -> None:
    assert [workload.name for workload in choose_workloads(choice)] == names


def test_options_reach_the_workloads_that_have_them() -> None:
    chosen = choose_workloads(
        Choice(["streams", "prefill"], "1,4", requests_per_stream=3, max_tokens=7, rate=2.5, duration_s=9.0)
    )
    assert chosen == (
        Streams(streams=(1, 4), requests_per_stream=3, max_tokens=7),
        Prefill(),
        Arrivals(rate=2.5, duration_s=9.0, max_tokens=7),
    )


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(names=["steams"]), "--workload steams: there are streams, prefill"),
        (Choice(duration_s=3.0), "--duration: only requests at a --rate"),
        (Choice(names=["prefill"], streams="1"), "--streams: none of the workloads has that: prefill"),
        (Choice(names=["chats"], requests_per_stream=2), "--requests-per-stream: none of the workloads"),
        (Choice(names=["prefill", "prediction"], max_tokens=2), "--max-tokens: none of the workloads"),
        (Choice(names=["all"], has_own_prompts=True), "--prompts: prefill has prompts of its own"),
        (Choice(streams="1,x"), "--streams 1,x: expected numbers"),
        (Choice(streams="0"), "--streams 0: expected numbers"),
    ],
)
def test_options_that_nothing_would_use_are_refused(choice: Choice, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        choose_workloads(choice)


def test_ones_own_prompts_are_messages_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(
        '{"messages": [{"role": "user", "content": "One"}]}\n\n'
        '{"messages": [{"role": "system", "content": "S"}, '
        '{"role": "user", "content": [{"type": "text", "text": "T"}]}]}\n'
    )
    assert read_own_prompts(file) == [
        (Message("user", "One"),),
        (Message("system", "S"), Message("user", [{"type": "text", "text": "T"}])),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ('{"messages": []}', "line 1: no messages"),
        (
            '{"messages": [{"role": "user", "content": "a"}]}\n{"prompt": 1}',
            "line 2: Object contains unknown field",
        ),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "line 1: Invalid enum value 'robot'"),
        ("nonsense", "line 1: JSON is malformed"),
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(text)
    with pytest.raises(PlanError, match=message):
        read_own_prompts(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"--prompts .*gone\.jsonl: No such file"):
        read_own_prompts(tmp_path / "gone.jsonl")
