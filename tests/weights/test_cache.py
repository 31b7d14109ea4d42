"""What is said before a disk would be full."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mezzo.weights import SilentProgress, WeightsError
from mezzo.weights.cache import disk_errors, exclusive, publish, require_free_space, work_folder


def test_too_little_room_is_told_before_the_work(tmp_path: Path) -> None:
    require_free_space(tmp_path, 1)
    with pytest.raises(
        WeightsError, match=r"Not enough disk space in .*: 1000000000 GB are needed, .* are free\."
    ):
        require_free_space(tmp_path, 10**18)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_in_the_middle(tmp_path: Path, number: int) -> None:
    with pytest.raises(WeightsError, match="is full"), disk_errors(tmp_path):
        raise OSError(number, "no room")


def test_full_device_is_recognised(tmp_path: Path) -> None:
    with (
        pytest.raises(WeightsError, match="is full"),
        disk_errors(tmp_path),
        Path("/dev/full").open("wb") as file,
    ):
        file.write(b"x" * 100_000)


def test_other_trouble_names_its_cause(tmp_path: Path) -> None:
    expected = pytest.raises(WeightsError, match=r"Cannot work in .*: Read-only file system\.")
    with expected as caught, disk_errors(tmp_path):
        raise OSError(errno.EROFS, "read-only", "some file")
    assert "MEZZO_HOME" in (caught.value.hint or "")


def test_an_error_without_a_cause_of_the_system_passes(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a library's own"), disk_errors(tmp_path):
        raise OSError("a library's own")


def test_work_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    dead = tmp_path / "partial" / "key" / "dead"
    dead.mkdir(parents=True)
    (dead / "half").write_text("half")
    with exclusive(tmp_path, "key", SilentProgress()), work_folder(tmp_path, "key") as work:
        assert not dead.exists()
        assert list(work.iterdir()) == []
    assert not work.exists()


def test_publish_takes_the_place_of_a_damaged_folder(tmp_path: Path) -> None:
    target = tmp_path / "checkpoints" / "key"
    target.mkdir(parents=True)
    (target / "old").write_text("old")
    with work_folder(tmp_path, "key") as work:
        (work / "new").mkdir()
        (work / "new" / "file").write_text("new")
        publish(work / "new", target, work=work)
    assert [path.name for path in target.iterdir()] == ["file"]
    assert not any((tmp_path / "partial").rglob("old"))
