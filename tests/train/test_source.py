"""Batch number n is the same whoever draws it, and processes that draw end with their trainer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mezzo.train.data import fonts
from mezzo.train.data.mixture import Mixture, Part, Size
from mezzo.train.data.source import Batch, DrawingStopped, batches
from mezzo.train.text import TextSource
from tests.train.small import environment, make_source

pytestmark = pytest.mark.usefixtures("packaged_fonts")
UNKNOWN = Mixture((Part(1, (("no such scene", 1.0),), (Size(1, 2),)),))


def assert_same(first: Batch, second: Batch) -> None:
    assert np.array_equal(first.pixels, second.pixels)
    assert first.conversations == second.conversations
    assert first.targets.keys() == second.targets.keys()
    for name, array in first.targets.items():
        assert np.array_equal(array, second.targets[name]), name


def test_a_number_is_a_batch(language: Path) -> None:
    source = make_source(language)
    opened, again = source.open(), source.open()
    drawn = [opened.batch(number) for number in range(6)]
    for number in (5, 0, 3):
        assert_same(drawn[number], again.batch(number))
    assert not np.array_equal(drawn[0].pixels, drawn[1].pixels)
    held_out = make_source(language, split="held_out").open().batch(0)
    assert held_out.conversations != drawn[0].conversations


def test_all_parts_of_a_batch_fit(language: Path) -> None:
    batch = make_source(language).open().batch(2)
    count, height, width, _ = batch.pixels.shape
    patches, cells = count * height * width // 8**2, count * height * width // 16**2
    assert len(batch.conversations) == count
    assert 20 <= cells <= 28  # about 24
    assert {name: array.shape[0] for name, array in batch.targets.items()} == {
        "patch_chars": patches, "patch_areas": patches,
        "cell_chars": cells, "cell_areas": cells, "cell_centres": cells,
    }  # fmt: skip
    image_id = make_source(language).image_tokens[0]
    assert sum(c.token_ids.count(image_id) for c in batch.conversations) == cells


@pytest.mark.parametrize(
    ("first", "num_workers", "stride"), [(0, 2, 1), (3, 1, 1), (1, 2, 3)], ids=["two", "one", "of a team"]
)
def test_processes_draw_the_same_from_any_number_on(
    language: Path, first: int, num_workers: int, stride: int
) -> None:
    source = make_source(language)
    opened = source.open()
    with batches(source, first, num_workers, stride) as drawn:
        for turn, batch in enumerate(islice(drawn, 4)):
            assert_same(batch, opened.batch(first + turn * stride))


def test_a_process_that_cannot_draw_is_told(language: Path) -> None:
    source = make_source(language, UNKNOWN)
    with (
        batches(source, 0, 1) as drawn,
        pytest.raises(
            DrawingStopped, match=r"a process that draws pictures has ended: .*-\d+ with exit code 1"
        ),
    ):
        next(drawn)


def test_a_machine_without_fonts_is_told_before_a_process_starts(language: Path) -> None:
    fonts.remember(())
    with (
        pytest.raises(LookupError, match="no fonts that can write English"),
        batches(make_source(language), 0, 1),
    ):
        pass


TRAINER = """
import multiprocessing, sys, time
from pathlib import Path
from tests.train.small import make_source, packaged_families
from mezzo.train.data import fonts
from mezzo.train.data.source import batches
if __name__ == "__main__":
    fonts.remember(packaged_families())
    with batches(make_source(Path(sys.argv[1])), 0, 1) as drawn:
        next(drawn)
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(300)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_processes_end_with_a_trainer_that_was_killed(language: Path, tmp_path: Path) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    trainer = subprocess.Popen(
        [sys.executable, str(script), str(language)], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert trainer.stdout is not None
    workers = [int(pid) for pid in trainer.stdout.readline().split()]
    assert workers
    assert all(is_running(pid) for pid in workers)
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.wait()
    trainer.stdout.close()
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [pid for pid in workers if is_running(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "a process that draws outlives its trainer"


def test_text_is_the_same_for_the_same_step(language: Path) -> None:
    path = language / "tokenizer.json"
    first, second = TextSource(path, 1), TextSource(path, 1)
    prose = first.batch(0, 200)
    assert prose.shape == (3, 64)
    assert prose.equal(second.batch(0, 200))
    assert first.batch(2, 1).shape == (1, 64)
    assert not prose[:1].equal(first.batch(2, 64))
    turn = make_source(language).open().chat.tokenizer.token_to_id("<|im_start|>")
    assert turn not in prose
    assert turn in first.batch(1, 200)  # conversations at odd steps
