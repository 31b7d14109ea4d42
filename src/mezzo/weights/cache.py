"""Where weights live on this machine, and how a folder gets there whole or not at all.

HOME/checkpoints/<key>       a converted checkpoint; it exists only when it is complete
HOME/partial/<key>/<random>  work of a running process; of a dead one if nobody holds the lock
HOME/locks/<key>.lock        held by the one process that prepares <key>; the system frees it on any death
HOME/hub/                    the Hugging Face hub's own cache layout
HOME/pulls/                  one record per repository that was fetched from the hub to the end
HOME/checksums/              SHA-256 of local GGUF files, by path, size and time of change
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mezzo.kit.files import sync_to_disk
from mezzo.weights.errors import WeightsError
from mezzo.weights.progress import Progress, format_size

# Part of every converted folder's name: raise it when the same GGUF gives other files than before.
CONVERTER_VERSION = 2

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MORE_ROOM = "Free some space there, or set MEZZO_HOME to a folder on a disk with more room."


def checkpoint_key(name: str, sha256: str) -> str:
    """Name the conversion of one GGUF: `name` is for people, the hash and the version make it unique."""
    return f"{name}-{sha256[:16]}-v{CONVERTER_VERSION}"


def checkpoint_path(home: Path, key: str) -> Path:
    """Return where the converted checkpoint `key` is, or will be."""
    return home / "checkpoints" / key


@contextmanager
def exclusive(home: Path, key: str, progress: Progress) -> Iterator[None]:
    """Hold the lock on `key`, waiting for another process that has it. What was missing may be there then."""
    from filelock import FileLock, Timeout  # noqa: PLC0415 - not needed where the weights are already there

    locks = home / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.note("Another mezzo process is preparing these weights; waiting until it has finished.")
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def work_folder(home: Path, key: str) -> Iterator[Path]:
    """Give an empty folder on the cache's own disk; it is gone afterwards. Hold the lock on `key`.

    Leftovers of processes that died are removed first. The name is new each time, so that a download that
    outlived its parent for a moment cannot write into this run's files.
    """
    parent = home / "partial" / key
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def publish(folder: Path, target: Path, *, work: Path) -> None:
    """Move a finished folder to its place in one step, after all its bytes have reached the disk.

    A damaged `target` (someone deleted a file in it) is moved into `work` first.
    """
    for file in folder.iterdir():
        sync_to_disk(file)
    sync_to_disk(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(work / "damaged")
    folder.rename(target)
    sync_to_disk(target.parent)


def require_free_space(home: Path, num_bytes: int) -> None:
    """Check, before the work, that it will fit. Raises: WeightsError saying how much is needed and free."""
    free = shutil.disk_usage(home).free
    if free < num_bytes:
        raise WeightsError(
            f"Not enough disk space in {home}: "
            f"{format_size(num_bytes)} are needed, {format_size(free)} are free.",
            hint=MORE_ROOM,
        )


@contextmanager
def disk_errors(home: Path) -> Iterator[None]:
    """Turn a full or unwritable disk at any point of the work into one sentence. Raises: WeightsError."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        if error.errno in DISK_FULL:
            raise disk_full(home) from error
        raise WeightsError(
            f"Cannot work in the cache folder {home}: {os.strerror(error.errno)}.",
            hint="Make it writable, or set MEZZO_HOME to a folder that is.",
            detail=str(error),
        ) from error


def disk_full(home: Path) -> WeightsError:
    """Make the error for a disk that became full during the work."""
    return WeightsError(f"The disk with {home} is full: the weights could not be completed.", hint=MORE_ROOM)
