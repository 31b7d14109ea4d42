"""`mezzo train documents`: a checkpoint to serve, errors in one line, and a run that goes on after any kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mezzo.train.log import read_log
from tests.cli.conftest import Run
from tests.train.documents.small import (
    LINES,
    chat_checkpoint,
    documents_run,
    greedy,
    three_lines,
    train,
    user,
)

OPTIONS = (
    "--held-out",
    "0",
    "--rank",
    "8",
    "--learning-rate",
    "1e-2",
    "--batch-tokens",
    "256",
    "--max-tokens",
    "256",
)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return chat_checkpoint(tmp_path / "weights")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return three_lines(tmp_path / "data.jsonl")


def test_what_was_taught_is_served(mezzo: Run, weights: Path, data: Path, tmp_path: Path) -> None:
    arguments = (
        "train",
        "documents",
        "weights",
        "data.jsonl",
        "run",
        *OPTIONS,
        "--epochs",
        "60",
        "--dtype",
        "float32",
    )
    done = mezzo(*arguments)
    assert (done.returncode, done.stdout) == (0, "run/checkpoint\n"), done.stderr
    said = done.stderr.splitlines()
    assert said[0].startswith("3 lines: 3 samples to learn, 0 held out, ")
    assert " tokens/s, 0:00:00 left" in said[-1]
    for question, answer in LINES:
        assert greedy(tmp_path / "run" / "checkpoint", [user(question)], tmp_path) == answer
    assert mezzo(*arguments).stdout == "run/checkpoint\n"
    again = mezzo(*arguments[:-2], "--dtype", "bfloat16")
    assert again.returncode == 1
    assert again.stderr.startswith(
        "error: run holds a run whose dtype is float32, not bfloat16; give another folder"
    )


def test_errors_are_one_line(mezzo: Run, weights: Path, data: Path) -> None:
    missing = mezzo("train", "documents", "weights", "none.jsonl", "run")
    assert (missing.returncode, missing.stderr) == (2, "error: there is no file none.jsonl\n")
    data.write_text(data.read_text() + json.dumps({"messages": [user("a")]}) + "\n")
    done = mezzo("train", "documents", "weights", "data.jsonl", "run")
    assert done.returncode == 1
    assert done.stderr == "error: data.jsonl, line 4: messages: no assistant message, so nothing to learn\n"


def test_a_killed_run_goes_on_to_the_same_bits(
    environment: dict[str, str], weights: Path, data: Path, tmp_path: Path
) -> None:
    """Killed for real, in the middle of it, twice."""
    command = [
        sys.executable, "-m", "mezzo", "train", "documents", "weights", "data.jsonl", "killed", *OPTIONS,
        "--epochs", "60", "--dtype", "float32", "--save-every", "0",
    ]  # fmt: skip
    log = tmp_path / "killed" / "log.jsonl"
    for wanted in (5, 25):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
        while not log.exists() or len(read_log(log)) < wanted:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert read_log(log)[-1]["step"] < 60
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    whole = documents_run(tmp_path / "whole", data, weights)
    train(whole)
    for name in ("checkpoint/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (whole.folder / name).read_bytes()
    losses = [
        [(line["step"], line["loss"]) for line in read_log(run / "log.jsonl")]
        for run in (log.parent, whole.folder)
    ]
    assert losses[0] == losses[1]
