"""A stage learns, tells, saves, and goes on where it was stopped, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mezzo.train.log import read_log
from mezzo.train.loop import Pace, noise_seed, parameter_groups, rate_factor, run_stage
from mezzo.train.package import SCAFFOLDING, TENSORS
from mezzo.train.plot import draw_curves
from mezzo.train.recipe import Recipe, StageRecipe
from mezzo.train.recipes import RECIPES
from mezzo.train.stages import Lessons
from mezzo.train.state import load_state
from mezzo.train.vision_run import CannotTrain, VisionRun, image_tokens, training_device
from tests.train.small import (
    CPU,
    LINES,
    PACE,
    RECIPE,
    TWO_LESSONS,
    make_lessons,
    make_run,
    make_stage,
    train_until_killed,
    write_start,
)

pytestmark = pytest.mark.usefixtures("packaged_fonts")
STAGES = {stage.name: stage for stage in RECIPE.stages}


class Stopped(Exception):
    """The operator has had enough."""


def stop_after(step: int) -> Callable[[dict[str, Any]], None]:
    def report(line: dict[str, Any]) -> None:
        if line["step"] == step and line["kind"] == "train":
            raise Stopped

    return report


def state_of(lessons: Lessons) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in lessons.half.state_dict().items()}


def trained(
    language: Path, folder: Path, recipe: StageRecipe, pace: Pace = PACE, *, stops: tuple[int, ...] = ()
) -> dict[str, torch.Tensor]:
    """Train a stage, stopped after some steps, each time with all that is in memory lost. Returns all parameters."""
    folder.mkdir()
    for step in stops:
        with pytest.raises(Stopped):
            run_stage(make_lessons(language), make_stage(language, folder, recipe), pace, stop_after(step))
    lessons = make_lessons(language)
    run_stage(lessons, make_stage(language, folder, recipe), pace, lambda line: None)
    return state_of(lessons)


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


# Stopped after a step that was not saved: saved are even ones. And twice within one save.
@pytest.mark.parametrize(("name", "stops"), [("words", (3,)), ("cells", (1, 3)), ("joint", (3,))])
def test_stopped_and_gone_on_is_as_in_one_go(
    language: Path, tmp_path: Path, name: str, stops: tuple[int, ...]
) -> None:
    in_one_go = trained(language, tmp_path / "a", STAGES[name])
    stopped = trained(language, tmp_path / "b", STAGES[name], stops=stops)
    assert_same(in_one_go, stopped)
    before = state_of(make_lessons(language))
    changed = {n.partition(".")[0] for n, tensor in before.items() if not torch.equal(tensor, in_one_go[n])}
    assert changed == {
        "words": {"vision", "heads"}, "cells": {"lora"}, "joint": {"vision", "heads", "lora"}
    }[name]  # fmt: skip
    logs = [read_log(make_stage(language, tmp_path / run, STAGES[name]).log) for run in ("a", "b")]
    steps = [[(line["kind"], line["step"]) for line in log] for log in logs]
    assert steps[0] == steps[1]  # what was done twice is told once
    seconds = [line["seconds"] for line in logs[1]]
    assert seconds == sorted(seconds)


def test_a_stage_that_is_done_is_not_done_again(language: Path, tmp_path: Path) -> None:
    first = trained(language, tmp_path / "a", STAGES["words"])
    lessons, told = make_lessons(language), list[dict[str, Any]]()
    run_stage(lessons, make_stage(language, tmp_path / "a", STAGES["words"]), PACE, told.append)
    assert told == []
    assert_same(first, state_of(lessons))


def test_it_learns(language: Path, tmp_path: Path) -> None:
    recipe = replace(STAGES["cells"], steps=40, learning_rate=1e-2, text_tokens=0)
    told: list[dict[str, Any]] = []
    pace = Pace(log_every=1, evaluate_every=20, save_every=40, held_out_batches=1)
    run_stage(make_lessons(language), make_stage(language, tmp_path, recipe), pace, told.append)
    losses = [line["loss"] for line in told if line["kind"] == "train"]
    assert losses[-1] < 0.9 * losses[0]


def test_the_log_is_json_of_numbers(language: Path, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    stage = make_stage(language, tmp_path, STAGES["joint"])
    run_stage(make_lessons(language), stage, PACE, told.append)
    lines = [json.loads(line) for line in stage.log.read_text().splitlines()]
    assert lines == told == read_log(stage.log)
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("train", 1), ("train", 2), ("train", 3), ("held_out", 3), ("train", 4), ("held_out", 4),
    ]  # fmt: skip
    shares = {"tokens", "exact", "chars", "kinds", "colours", "writing"}
    assert lines[0].keys() == {
        "kind", "step", "of", "seconds", "loss", "language", "norm", "rate", "steps_per_second", *shares
    }  # fmt: skip
    assert lines[3].keys() == {"kind", "step", "of", "seconds", "loss", *shares}
    assert all(0 <= lines[0][share] <= 1 for share in shares - {"writing"})
    assert lines[0]["of"] == 4
    draw_curves({"joint": read_log(stage.log)}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_log(tmp_path / "log") == [{"step": 1}]


def test_a_loss_that_is_no_number_ends_the_stage_unsaved(language: Path, tmp_path: Path) -> None:
    lessons, stage = make_lessons(language), make_stage(language, tmp_path, STAGES["words"])
    lessons.half.vision.projector.w_out.weight.data[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="the gradient at step 0 is no number"):
        run_stage(lessons, stage, PACE, lambda line: None)
    assert not stage.state.exists()


def test_the_rate_rises_stays_and_falls() -> None:
    recipe = replace(STAGES["words"], steps=100, warmup=10, decay=0.2)
    factors = [rate_factor(step, recipe) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:81] == [1.0] * 72
    assert factors[90] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.05)
    assert factors == sorted(factors[:50]) + sorted(factors[50:], reverse=True)
    assert [rate_factor(step, replace(recipe, steps=1, warmup=0)) for step in range(1)] == [1.0]


def test_noise_is_of_the_step_and_the_stage() -> None:
    seeds = {noise_seed(seed, stage, step) for seed in (1, 2) for stage in ("a", "b") for step in (0, 1)}
    assert len(seeds) == 8
    assert noise_seed(1, "cells", 3) == 3409651153


@pytest.mark.parametrize(("name", "rates"), [("words", {1e-3}), ("cells", {1e-3}), ("joint", {1e-3, 5e-4})])
def test_each_lesson_moves_its_own_at_its_own_rate(language: Path, name: str, rates: set[float]) -> None:
    half = make_lessons(language).half
    groups = parameter_groups(half, STAGES[name])
    assert {group["highest"] for group in groups} == rates
    chosen = {id(p) for group in groups for p in group["params"]}
    assert chosen == {id(p) for p in half.parameters() if p.requires_grad}
    assert all(group["weight_decay"] == 0 for group in groups if group["params"][0].ndim == 1)


class TestRun:
    def test_killed_and_gone_on_is_as_in_one_go(self, language: Path, tmp_path: Path) -> None:
        """Two processes: the first is killed in the middle of the second stage."""
        killed, whole = tmp_path / "killed", tmp_path / "whole"
        start = write_start(language, tmp_path / "start")
        train_until_killed(language, killed, start)
        torch.set_num_threads(1)
        told_again: list[dict[str, Any]] = []
        package = make_run(language, killed, TWO_LESSONS, start).train(told_again.append)
        assert package == killed / "package"
        assert told_again[0] | {"stage": "words", "step": 3} == told_again[0]
        make_run(language, whole, TWO_LESSONS, start).train(lambda line: None)
        for name in (TENSORS, SCAFFOLDING, "vision.json"):
            assert (package / name).read_bytes() == (whole / "package" / name).read_bytes(), name
        assert (killed / "curves.png").exists()

    def test_goes_on_from_a_package(self, language: Path, tmp_path: Path) -> None:
        first = make_run(language, tmp_path / "a", RECIPE.only(["words"]))
        with pytest.raises(CannotTrain, match="holds nothing that was trained yet"):
            first.package()
        package = first.train(lambda line: None)
        assert first.package() == package
        trained_half = make_lessons(language).half
        load_state(tmp_path / "a" / "words.safetensors", trained_half, None)
        second = make_run(language, tmp_path / "b", RECIPE.only(["joint"]), start=package)
        begun = second._load().half.state_dict()
        for name, tensor in trained_half.state_dict().items():
            assert torch.equal(tensor.half().float(), begun[name]), name
        with pytest.raises(CannotTrain, match=r"cannot go on from .*nowhere"):
            replace(second, start=tmp_path / "nowhere")._load()

    @pytest.mark.parametrize("other", [replace(RECIPE, seed=2), RECIPE.scaled(2), RECIPE.only(["words"])])
    def test_a_folder_with_another_run_is_refused(
        self, language: Path, tmp_path: Path, other: Recipe
    ) -> None:
        make_run(language, tmp_path / "run")._claim_folder()
        make_run(language, tmp_path / "run")._claim_folder()
        with pytest.raises(CannotTrain, match="holds a run of another recipe"):
            make_run(language, tmp_path / "run", other).train(lambda line: None)

    def test_a_folder_with_other_things_in_it_is_refused(self, language: Path, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(CannotTrain, match="is not empty and holds no run"):
            make_run(language, tmp_path).train(lambda line: None)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_recipes_can_be_written_into_run_json(self, language: Path, tmp_path: Path) -> None:
        for name, recipe in RECIPES.items():
            run = VisionRun(tmp_path / name, recipe, language, (3, 4, 5), CPU, PACE)
            run._claim_folder()
            run._claim_folder()

    def test_a_device_that_is_not_there_is_named(self) -> None:
        assert training_device("cpu") == CPU
        with pytest.raises(CannotTrain, match=r"there is no device 'cuda:77' here"):
            training_device("cuda:77")

    def test_a_tokenizer_without_spare_tokens_is_named(self, language: Path, tmp_path: Path) -> None:
        with pytest.raises(CannotTrain, match=r"has no tokenizer\.json"):
            image_tokens(tmp_path)
        raw = json.loads((language / "tokenizer.json").read_text())

        def write(*without: str) -> None:
            added = [token for token in raw["added_tokens"] if token["content"] not in without]
            vocab = {token: i for token, i in raw["model"]["vocab"].items() if token not in without}
            text = json.dumps(raw | {"added_tokens": added, "model": raw["model"] | {"vocab": vocab}})
            (tmp_path / "tokenizer.json").write_text(text)

        write("<|im_end|>")
        with pytest.raises(CannotTrain, match=r"has no token <\|im_end\|>"):
            image_tokens(tmp_path)
        write("<empty_output>")
        with pytest.raises(CannotTrain, match=r"has no tokens for images"):
            image_tokens(tmp_path)


def test_scaling_leaves_a_step() -> None:
    assert [stage.steps for stage in RECIPE.scaled(0.01).stages] == [1, 1, 1]
    assert [stage.steps for stage in RECIPE.scaled(2).stages] == [8, 12, 8]
    assert LINES.progress(0) == 1.0
    with pytest.raises(KeyError):
        RECIPE.only(["no such stage"])
