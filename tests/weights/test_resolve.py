"""From a spec to a folder: every form, and what kills, full disks and other processes may not break."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mezzo.kit.files import sha256_of_file
from mezzo.weights import CheckpointFolder, SilentProgress, WeightsError, find_weights, resolve_weights
from mezzo.weights.hub import HubRepository
from mezzo.weights.resolve import LocalFolder, LocalGguf, parse_spec
from mezzo.weights.sources import NANO

if TYPE_CHECKING:
    from conftest import Resolver

SILENT = SilentProgress()


class TestParseSpec:
    @pytest.mark.parametrize(
        ("spec", "source"),
        [
            ("nano", NANO),
            ("hf:org/name", HubRepository("org/name", "main")),
            (
                "hf:mistralai/Ministral-3-3B_x.1@refs/pr/4",
                HubRepository("mistralai/Ministral-3-3B_x.1", "refs/pr/4"),
            ),
            ("org/name", HubRepository("org/name", "main")),
            ("org/name@v1.0", HubRepository("org/name", "v1.0")),
        ],
    )
    def test_names(self, spec: str, source: object) -> None:
        assert parse_spec(spec) == source

    def test_local_folder_of_that_name_comes_before_the_hub(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "org" / "name").mkdir(parents=True)
        (tmp_path / "org" / "tiny.gguf").write_bytes(b"")
        monkeypatch.chdir(tmp_path)
        assert parse_spec("org/name") == LocalFolder(Path("org/name"))
        assert parse_spec("org/tiny.gguf") == LocalGguf(Path("org/tiny.gguf"))
        assert parse_spec("hf:org/name") == HubRepository("org/name")

    @pytest.mark.parametrize(
        "spec", ["", "nono", "/no/such/folder", "./nano", "../up/there", "no/such.gguf", "a/b/c", "org/name@"]
    )
    def test_what_fits_no_form_is_refused_with_the_forms(self, spec: str) -> None:
        with pytest.raises(WeightsError, match="no such folder or file") as caught:
            parse_spec(spec)
        assert "hf:ORG/NAME" in (caught.value.hint or "")

    @pytest.mark.parametrize(
        "spec", ["hf:", "hf:name", "hf:../x", "hf:org/name/more", "hf:org/na me", "hf:org/n@"]
    )
    def test_what_names_no_repository_is_refused(self, spec: str) -> None:
        with pytest.raises(WeightsError, match="does not name a repository"):
            parse_spec(spec)


class TestLocalFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "mine"
        folder.mkdir()
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / name).write_text("{}")
        return folder

    def test_whole_folder_is_taken_as_it_is(self, folder: Path, tmp_path: Path) -> None:
        found = resolve_weights(str(folder), home=tmp_path / "home", progress=SILENT)
        assert (
            found == CheckpointFolder(folder, "mine", "mine") == find_weights(str(folder), tmp_path / "home")
        )
        assert not (tmp_path / "home").exists()

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
    def test_missing_file_is_named(self, folder: Path, tmp_path: Path, name: str) -> None:
        (folder / name).unlink()
        expected = "*.safetensors" if name == "model.safetensors" else name
        assert find_weights(str(folder), tmp_path) is None
        with pytest.raises(WeightsError) as caught:
            resolve_weights(str(folder), home=tmp_path, progress=SILENT)
        assert str(caught.value).endswith(f"it lacks {expected}.")

    def test_missing_shard_of_the_index_is_named(self, folder: Path, tmp_path: Path) -> None:
        index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(WeightsError, match=r"it lacks model-2\.safetensors\."):
            resolve_weights(str(folder), home=tmp_path, progress=SILENT)
        (folder / "model-2.safetensors").write_text("")
        assert resolve_weights(str(folder), home=tmp_path, progress=SILENT).path == folder

    @pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": 3}'])
    def test_unreadable_index_is_named(self, folder: Path, tmp_path: Path, index: str) -> None:
        (folder / "model.safetensors.index.json").write_text(index)
        with pytest.raises(WeightsError, match=r"it lacks a readable model\.safetensors\.index\.json"):
            resolve_weights(str(folder), home=tmp_path, progress=SILENT)

    def test_pickles_are_never_weights(self, folder: Path, tmp_path: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(WeightsError, match="pickle files only, which can run code"):
            resolve_weights(str(folder), home=tmp_path, progress=SILENT)

    def test_file_that_is_no_gguf(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"neither a checkpoint folder nor a \.gguf file"):
            resolve_weights(str(folder / "config.json"), home=tmp_path, progress=SILENT)


class TestLocalGguf:
    def test_is_converted_once(self, make_gguf: Callable[..., Path], tmp_path: Path) -> None:
        path, home = make_gguf(), tmp_path / "home"
        assert find_weights(str(path), home) is None
        folder = resolve_weights(str(path), home=home, progress=SILENT)
        assert (folder.name, folder.description) == ("tiny", "Tiny")
        made_at = folder.path.stat().st_mtime_ns
        assert find_weights(str(path), home) == folder
        assert resolve_weights(str(path), home=home, progress=SILENT) == folder
        assert folder.path.stat().st_mtime_ns == made_at

    def test_changed_file_is_converted_anew(self, make_gguf: Callable[..., Path], tmp_path: Path) -> None:
        first = resolve_weights(str(make_gguf()), home=tmp_path / "home", progress=SILENT)
        path = make_gguf(seed=1)
        assert find_weights(str(path), tmp_path / "home") is None
        second = resolve_weights(str(path), home=tmp_path / "home", progress=SILENT)
        assert second.path != first.path
        assert sha256_of_file(second.path / "model.safetensors") != sha256_of_file(
            first.path / "model.safetensors"
        )

    def test_damaged_folder_in_the_cache_is_made_again(
        self, make_gguf: Callable[..., Path], tmp_path: Path
    ) -> None:
        path, home = make_gguf(), tmp_path / "home"
        folder = resolve_weights(str(path), home=home, progress=SILENT)
        expected = sha256_of_file(folder.path / "model.safetensors")
        (folder.path / "model.safetensors").unlink()
        assert find_weights(str(path), home) is None
        assert resolve_weights(str(path), home=home, progress=SILENT) == folder
        assert sha256_of_file(folder.path / "model.safetensors") == expected

    def test_cache_that_cannot_be_written_is_one_sentence(
        self, make_gguf: Callable[..., Path], tmp_path: Path
    ) -> None:
        (tmp_path / "home").write_text("a file where the folder should be")
        with pytest.raises(WeightsError, match=r"Cannot work in the cache folder .*: Not a directory"):
            resolve_weights(str(make_gguf()), home=tmp_path / "home", progress=SILENT)


def leftovers(home: Path) -> list[str]:
    """List what is in the cache besides finished checkpoints, locks and remembered checksums."""
    kept = {"checkpoints", "locks", "checksums"}
    return [
        str(path)
        for path in home.rglob("*")
        if path.is_file() and path.relative_to(home).parts[0] not in kept
    ]


@pytest.fixture(scope="module")
def expected_sha256(large_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    home = tmp_path_factory.mktemp("reference")
    folder = resolve_weights(str(large_gguf), home=home, progress=SILENT)
    sha256 = sha256_of_file(folder.path / "model.safetensors")
    shutil.rmtree(home)
    return sha256


@pytest.mark.slow
class TestConversionUnderFire:
    def test_kill_at_any_moment_leaves_nothing_or_the_whole(
        self, large_gguf: Path, tmp_path: Path, resolver: type[Resolver], expected_sha256: str
    ) -> None:
        home = tmp_path / "home"

        def size_of_partial() -> int:
            try:
                return sum(path.stat().st_size for path in home.glob("partial/*/*/checkpoint/*"))
            except FileNotFoundError:
                return 0

        moments: list[Callable[[], Any]] = [
            lambda: any(home.glob("locks/*")),
            lambda: any(home.glob("partial/*/*")),
            lambda: size_of_partial() > 1_000,
            lambda: size_of_partial() > 30_000_000,
            lambda: size_of_partial() > 100_000_000,
            lambda: (
                any(home.glob("partial/*/*/checkpoint/model.safetensors")) and size_of_partial() > 120_000_000
            ),
        ]
        for moment in moments:
            running = resolver(large_gguf, home)
            running.wait_until(moment)
            running.kill()
            for folder in home.glob("checkpoints/*"):  # the last moments may be too late for the kill
                assert sha256_of_file(folder / "model.safetensors") == expected_sha256
                shutil.rmtree(folder)
        answer, _ = resolver(large_gguf, home).result()
        assert sha256_of_file(Path(answer["path"]) / "model.safetensors") == expected_sha256
        assert leftovers(home) == []

    def test_interrupt_leaves_nothing(
        self, large_gguf: Path, tmp_path: Path, resolver: type[Resolver]
    ) -> None:
        home = tmp_path / "home"
        running = resolver(large_gguf, home)
        running.wait_until(lambda: any(home.glob("partial/*/*/checkpoint/model.safetensors")))
        running.process.send_signal(signal.SIGINT)
        running.process.communicate(timeout=60)
        assert running.process.returncode != 0
        assert leftovers(home) == []
        assert list(home.glob("checkpoints/*")) == []

    @pytest.mark.parametrize("max_file_bytes", [200, 5_000, 40_000_000])
    def test_full_disk_is_one_sentence_and_leaves_nothing(
        self, large_gguf: Path, tmp_path: Path, resolver: type[Resolver], max_file_bytes: int
    ) -> None:
        home = tmp_path / "home"
        answer, _ = resolver(large_gguf, home, max_file_bytes=max_file_bytes).result()
        assert answer["error"] == f"The disk with {home} is full: the weights could not be completed."
        assert "MEZZO_HOME" in answer["hint"]
        assert leftovers(home) == []
        assert list(home.glob("checkpoints/*")) == []

    def test_second_process_waits_for_the_first_and_uses_its_work(
        self, large_gguf: Path, tmp_path: Path, resolver: type[Resolver]
    ) -> None:
        home = tmp_path / "home"
        first = resolver(large_gguf, home)
        first.wait_until(lambda: any(home.glob("partial/*/*/checkpoint/model.safetensors")))
        first.process.send_signal(signal.SIGSTOP)  # it holds the lock until it may go on
        second = resolver(large_gguf, home)
        assert second.process.stderr is not None
        said = []
        while "waiting" not in (line := second.process.stderr.readline()):
            assert line, said
            said.append(line)
        first.process.send_signal(signal.SIGCONT)
        answer, first_said = first.result()
        waited_answer, second_said = second.result()
        assert waited_answer == answer
        assert "Converting" in first_said
        assert "Converting" not in "".join(said) + second_said


STARTUP = """
import sys
from pathlib import Path
from mezzo.weights import find_weights
assert find_weights(sys.argv[1], Path(sys.argv[2])) is not None
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_finding_imports_nothing_heavy(make_gguf: Callable[..., Path], tmp_path: Path) -> None:
    path, home = make_gguf(), tmp_path / "home"
    folder = resolve_weights(str(path), home=home, progress=SILENT)
    for spec in (path, folder.path):
        run = subprocess.run(
            [sys.executable, "-c", STARTUP, str(spec), str(home)],
            capture_output=True,
            text=True,
            check=True,
        )
        heavy = {
            "torch",
            "numpy",
            "gguf",
            "huggingface_hub",
            "tokenizers",
            "safetensors",
            "rich",
            "filelock",
            "asyncio",
        }
        assert set(run.stdout.split()) & heavy == set()


@pytest.mark.slow
def test_nano_is_found_where_it_was_put(nano_folder: CheckpointFolder, weights_home: Path) -> None:
    assert find_weights("nano", weights_home) == nano_folder
    assert nano_folder.description == "SmolLM2-135M-Instruct (Apache-2.0) with mezzo's vision half"
    # The cache is shared by test runs: what else lies in it is not this test's, the work on nano is.
    assert not (weights_home / "partial" / nano_folder.path.name).exists()
