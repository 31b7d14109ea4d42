"""Processes that train together average what they have, go on together, and end together."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mezzo.train.package import SCAFFOLDING, TENSORS
from mezzo.train.team import Member, team
from mezzo.train.vision_run import CannotTrain
from tests.train.small import TWO_LESSONS, make_run, train_until_killed, write_start

pytestmark = pytest.mark.usefixtures("packaged_fonts")


@pytest.fixture(autouse=True)
def importable_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the processes find this file's functions."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


def one_step(seed: int) -> torch.optim.AdamW:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.nn.Parameter(torch.randn(3, 5, generator=generator))
    unused = torch.nn.Parameter(torch.randn(2, generator=generator))
    optimizer = torch.optim.AdamW([matrix, unused], lr=0.1)
    matrix.grad = torch.randn(3, 5, generator=generator)
    optimizer.step()
    return optimizer


def tensors_of(optimizer: torch.optim.AdamW) -> list[torch.Tensor]:
    matrix, unused = optimizer.param_groups[0]["params"]
    state = optimizer.state[matrix]
    return [matrix.detach(), unused.detach(), state["exp_avg"], state["exp_avg_sq"]]


def test_parameters_and_moments_become_their_means() -> None:
    optimizers = [one_step(seed) for seed in (1, 2, 3)]
    wanted = [torch.stack(same).mean(0) for same in zip(*map(tensors_of, optimizers), strict=True)]
    board, barrier = torch.zeros(3, 4), threading.Barrier(3)  # four numbers: each matrix takes several rounds
    threads = [
        threading.Thread(target=Member(rank, 3, board, barrier).average, args=(optimizer,))  # type: ignore[arg-type]
        for rank, optimizer in enumerate(optimizers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for optimizer in optimizers:
        for tensor, mean in zip(tensors_of(optimizer), wanted, strict=True):
            assert torch.equal(tensor, mean)


def test_alone_nothing_changes() -> None:
    optimizer = one_step(1)
    before = [tensor.clone() for tensor in tensors_of(optimizer)]
    with team(1, print) as member:
        member.average(optimizer)
        member.meet()
    assert (member.rank, member.size) == (0, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors_of(optimizer), strict=True))


def fail(member: Member) -> None:
    raise ValueError(f"rank {member.rank} cannot go on")


def die(member: Member) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("work", "code", "said"), [(fail, "1", "rank 1 cannot go on"), (die, "-9", "")])
def test_one_that_ends_early_ends_all(
    work: Any, code: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    with (
        pytest.raises(
            CannotTrain, match=f"a process that trained beside this one has ended with exit code {code}"
        ),
        team(2, work) as member,
    ):
        member.meet()
    assert torch.get_num_threads() == threads
    errors = capfd.readouterr().err
    assert said in errors
    assert bool(said) == bool(errors)


def write_threads(folder: Path, member: Member) -> None:
    member.meet()
    (folder / str(member.rank)).write_text(str(torch.get_num_threads()))
    member.meet()


def test_they_share_the_cores(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        with team(2, partial(write_threads, tmp_path)) as member:
            write_threads(tmp_path, member)
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["2", "2"]


def test_two_processes_killed_and_gone_on_are_as_in_one_go(language: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    start = write_start(language, tmp_path / "start")
    train_until_killed(language, killed, start, processes=2)
    two = replace(make_run(language, killed, TWO_LESSONS, start), processes=2)
    again: list[dict[str, Any]] = []
    package = two.train(again.append)
    assert (again[0]["stage"], again[0]["step"]) == ("words", 3)
    replace(two, folder=whole).train(lambda line: None)
    for name in (TENSORS, SCAFFOLDING, "vision.json"):
        assert (package / name).read_bytes() == (whole / "package" / name).read_bytes(), name


def test_a_gpu_is_not_shared(language: Path, tmp_path: Path) -> None:
    run = replace(make_run(language, tmp_path), device=torch.device("cuda"), processes=2)
    with pytest.raises(CannotTrain, match="several processes train on a CPU alone; on cuda"):
        run.train(lambda line: None)
    assert not any(tmp_path.iterdir())
