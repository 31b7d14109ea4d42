"""`mezzo train`: from the command to a package, a sheet or a table, or one line that says why not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mezzo.weights import console_progress, resolve_weights
from mezzo.weights.sources import NANO_TEXT
from tests.server.live import live_server
from tests.train.small import environment

# As `mezzo`, on a machine without other fonts than those of matplotlib: to sort a thousand takes half a minute.
FEW_FONTS = """
from mezzo.cli.main import main
from mezzo.train.data import fonts
if __name__ == "__main__":
    fonts._FOLDERS = ()
    main()
"""
WITHOUT_EXTRA = """
import sys
sys.modules["matplotlib"] = sys.modules["fontTools"] = None
from mezzo.cli.main import main
main()
"""


class Command:
    """`mezzo train ARGS` in a folder of its own."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.environment = {k: v for k, v in environment().items() if not k.startswith("MEZZO_")}
        self.environment |= {"MEZZO_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "100"}

    def start(self, *args: str, program: str = FEW_FONTS) -> subprocess.Popen[str]:
        script = self.folder / "program.py"
        script.write_text(program)
        return subprocess.Popen(
            [sys.executable, str(script), "train", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=self.environment,
            cwd=self.folder,
        )

    def __call__(self, *args: str, program: str = FEW_FONTS) -> tuple[int, str, str]:
        process = self.start(*args, program=program)
        output, errors = process.communicate(timeout=600)
        return process.returncode, output, errors


@pytest.fixture
def train(tmp_path: Path) -> Command:
    return Command(tmp_path, tmp_path / "home")


@pytest.fixture(scope="session")
def nano_text_home(weights_home: Path) -> Path:
    """Return a home that has nano's language half."""
    resolve_weights(NANO_TEXT.name, home=weights_home, progress=console_progress())
    return weights_home


@pytest.fixture
def with_weights(tmp_path: Path, nano_text_home: Path) -> Command:
    return Command(tmp_path, nano_text_home)


@pytest.mark.parametrize("args", [("vision", "run"), ("evaluate",), ("samples", "sheet.png")])
def test_without_the_extra_it_says_how_to_get_it(train: Command, args: tuple[str, ...]) -> None:
    code, output, errors = train(*args, program=WITHOUT_EXTRA)
    assert (code, output) == (1, "")
    assert errors == (
        "error: training needs fontTools and matplotlib\n"
        "       Install them with: pip install 'mezzo[train]'\n"
    )  # fmt: skip


def test_no_server_is_one_line(train: Command) -> None:
    code, output, errors = train(
        "evaluate", "--url", "http://127.0.0.1:9", "--api-key", "mz-some-key-0123456789"
    )
    assert (code, output) == (1, "")
    assert errors.startswith("error: http://127.0.0.1:9 does not answer: ")
    assert errors.count("\n") == 1


def test_a_wrong_key_is_one_line(train: Command) -> None:
    with live_server() as server:
        code, output, errors = train("evaluate", "--url", server.url, "--api-key", "mz-wrong-key-0123456789")
    assert (code, output) == (1, "")
    assert errors.startswith(f"error: {server.url} refused: 401 ")
    assert errors.count("\n") == 1


def test_a_model_that_cannot_be_taught_is_named(train: Command, tmp_path: Path) -> None:
    (tmp_path / "language").mkdir()
    (tmp_path / "language" / "config.json").write_text("{}")
    (tmp_path / "language" / "model.safetensors").touch()
    code, output, errors = train("vision", "run", "--language", "language")
    assert (code, output) == (1, "")
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_arguments_that_make_no_sense(with_weights: Command, tmp_path: Path) -> None:
    code, _, errors = with_weights("vision", "run", "--scale", "0")
    assert (code, errors) == (2, "error: --scale must be above 0, not 0.0\n")
    code, _, errors = with_weights("vision", "run", "--stages", "letters,nothing")
    assert code == 2
    assert "there is no stage 'nothing'; there are letters, words" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_samples_are_a_sheet(with_weights: Command, tmp_path: Path) -> None:
    code, output, errors = with_weights("samples", "sheet.png", "--count", "1")
    assert (code, output) == (0, "sheet.png\n"), errors
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 500
    code, _, errors = with_weights("samples", "no/folder/sheet.png", "--count", "1")
    assert code == 1
    assert errors.startswith("error: cannot write no/folder/sheet.png: ")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_is_interrupted_and_goes_on(with_weights: Command, tmp_path: Path) -> None:
    args = ("vision", "run", "--recipe", "small", "--scale", "0.05", "--device", "cpu")
    args += ("--stages", "letters,answers,joint")  # one of each lesson
    process = with_weights.start(*args)
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if line.startswith("letters held_out"):
            process.kill()
            break
    process.communicate()
    assert told[-1].startswith("letters held_out 3/3: "), told
    code, output, errors = with_weights(*args)
    assert (code, output) == (0, "run/package\n"), errors
    stages = list(dict.fromkeys(line.split()[0] for line in errors.splitlines()))
    assert stages[-3:] == ["letters", "answers", "joint"]
    files = {path.name for path in (tmp_path / "run" / "package").iterdir()}
    assert {"vision.safetensors", "vision.json"} <= files
    assert (tmp_path / "run" / "curves.png").exists()
    log = (tmp_path / "run" / "joint.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in log] == ["train", "held_out"]
    code, output, errors = with_weights("vision", "run", "--recipe", "small", "--scale", "0.1")
    assert (code, output) == (1, "")
    assert "holds a run of another recipe" in errors


def test_help_needs_no_extra(train: Command) -> None:
    code, output, errors = train("--help", program=WITHOUT_EXTRA)
    assert (code, errors) == (0, "")
    assert all(name in output for name in ("vision", "evaluate", "samples"))
