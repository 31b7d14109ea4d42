"""Whole runs: what was taught is said, by the engine that serves; a run is one run, whatever interrupts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mezzo.model.config import ModelConfig
from mezzo.train.documents.run import DocumentsRun
from mezzo.train.errors import CannotTrain
from mezzo.train.log import read_log
from tests import tiny
from tests.train.documents.small import (
    LINES,
    about_picture,
    chat_checkpoint,
    data_uri,
    documents_run,
    greedy,
    png,
    said,
    three_lines,
    train,
    user,
    write_lines,
)


@pytest.mark.parametrize("saves_memory", [False, True])
def test_three_lines_are_learnt_by_heart(tmp_path: Path, saves_memory: bool) -> None:
    weights = chat_checkpoint(tmp_path / "weights")
    run = documents_run(
        tmp_path / "run", three_lines(tmp_path / "data.jsonl"), weights, saves_memory=saves_memory
    )
    checkpoint = train(run)
    for question, answer in LINES:
        assert greedy(checkpoint, [user(question)], tmp_path) == answer
    log = read_log(tmp_path / "run" / "log.jsonl")
    assert log[-1]["step"] == log[-1]["of"]
    assert log[-1]["loss"] < 0.5 < log[0]["loss"]
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000


def test_saving_memory_changes_no_number(tmp_path: Path) -> None:
    weights, data = chat_checkpoint(tmp_path / "weights"), three_lines(tmp_path / "data.jsonl")
    runs = [documents_run(tmp_path / str(s), data, weights, epochs=3, saves_memory=s) for s in (False, True)]
    for run in runs:
        train(run)
    losses = [[line["loss"] for line in read_log(run.folder / "log.jsonl")] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_pictures_are_told_apart(tmp_path: Path) -> None:
    """One picture beside the data, one inside its line; both reach the decoder through the frozen eyes."""
    weights = chat_checkpoint(tmp_path / "weights", sees=True)
    (tmp_path / "red.png").write_bytes(png((255, 0, 0)))
    red, blue = about_picture("red.png"), about_picture(data_uri(png((0, 0, 255))))
    data = write_lines(tmp_path / "data.jsonl", [red, said("Red.")], [blue, said("Blue.")])
    checkpoint = train(documents_run(tmp_path / "run", data, weights))
    assert greedy(checkpoint, [red], tmp_path) == "Red."
    assert greedy(checkpoint, [blue], tmp_path) == "Blue."
    before, after = (load_file(folder / "model.safetensors") for folder in (weights, checkpoint))
    assert before.keys() == after.keys()
    frozen = [name for name in before if not name.startswith("language_model.model.layers") or "norm" in name]
    assert all(torch.equal(before[name], after[name]) for name in frozen)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_frozen_weights_of_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = chat_checkpoint(tmp_path / "weights")
    run = documents_run(
        tmp_path / "run", three_lines(tmp_path / "data.jsonl"), weights, epochs=60, dtype=dtype
    )
    checkpoint = train(run)
    assert tiny.load(checkpoint, dtype).dtype is dtype
    assert load_file(checkpoint / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].dtype is dtype
    state = load_file(tmp_path / "run" / "state.safetensors")
    assert {t.dtype for name, t in state.items() if name.startswith("module.")} == {torch.float32}
    assert read_log(run.folder / "log.jsonl")[-1]["loss"] < 0.5


def test_what_is_held_out_is_measured_each_epoch_and_never_learnt(tmp_path: Path) -> None:
    weights = chat_checkpoint(tmp_path / "weights")
    run = documents_run(
        tmp_path / "run",
        three_lines(tmp_path / "data.jsonl"),
        weights,
        epochs=4,
        held_out=0.1,
        batch_tokens=1,
    )
    train(run)
    lines = read_log(run.folder / "log.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "held_out"] == [2, 4, 6, 8]
    assert lines[-1]["of"] == 8


class TestSameFolder:
    """A folder holds one run."""

    @pytest.fixture
    def done(self, tmp_path: Path) -> DocumentsRun:
        run = documents_run(
            tmp_path / "run",
            three_lines(tmp_path / "data.jsonl"),
            chat_checkpoint(tmp_path / "weights"),
            epochs=1,
        )
        train(run)
        return run

    def test_a_run_that_is_done_is_done(self, done: DocumentsRun) -> None:
        before = (done.checkpoint / "model.safetensors").stat().st_mtime_ns
        assert train(done) == done.checkpoint
        assert (done.checkpoint / "model.safetensors").stat().st_mtime_ns == before

    def test_a_checkpoint_that_was_not_written_is(self, done: DocumentsRun) -> None:
        whole = (done.checkpoint / "model.safetensors").read_bytes()
        done.checkpoint.rename(done.folder.parent / "away")
        assert (train(done) / "model.safetensors").read_bytes() == whole

    def test_other_options_are_refused(self, done: DocumentsRun) -> None:
        with pytest.raises(CannotTrain, match=r"holds a run whose rank is 8, not 4; give another folder"):
            train(documents_run(done.folder, done.data, done.weights, epochs=1, rank=4))

    def test_other_data_is_refused(self, done: DocumentsRun) -> None:
        done.data.write_text(done.data.read_text().replace("Lima", "Cusco"))
        with pytest.raises(CannotTrain, match="holds a run whose data_sha256 is"):
            train(done)

    def test_other_weights_are_refused(self, done: DocumentsRun) -> None:
        path = done.weights / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 1e-6}))
        with pytest.raises(CannotTrain, match="holds a run whose weights is"):
            train(done)

    def test_a_folder_of_something_else_is_left_alone(self, done: DocumentsRun) -> None:
        (done.folder / "run.json").unlink()
        with pytest.raises(CannotTrain, match="is not empty and holds no run"):
            train(done)


def test_other_pictures_are_refused(tmp_path: Path) -> None:
    weights = chat_checkpoint(tmp_path / "weights", sees=True)
    (tmp_path / "a.png").write_bytes(png((255, 0, 0)))
    run = documents_run(
        tmp_path / "run",
        write_lines(tmp_path / "data.jsonl", [about_picture("a.png"), said("Red.")]),
        weights,
        epochs=1,
    )
    train(run)
    (tmp_path / "a.png").write_bytes(png((0, 0, 255)))
    with pytest.raises(CannotTrain, match="holds a run whose samples_sha256 is"):
        train(run)


def test_the_checkpoint_is_a_whole_one(tmp_path: Path) -> None:
    weights = chat_checkpoint(tmp_path / "weights", sees=True)
    checkpoint = train(
        documents_run(tmp_path / "run", three_lines(tmp_path / "data.jsonl"), weights, epochs=1)
    )
    assert {path.name for path in checkpoint.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert ModelConfig.from_folder(checkpoint) == ModelConfig.from_folder(weights)
