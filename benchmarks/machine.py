"""What a figure depends on besides the code: the machine, the versions, the commit, other people's load."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

_REPOSITORY = Path(__file__).resolve().parent.parent
_LIBRARIES = ["torch", "tokenizers", "fastapi", "uvicorn", "uvloop", "httptools", "msgspec"]


class Machine(msgspec.Struct, frozen=True):
    cpu: str
    cores: int
    memory_gib: float
    instruction_sets: list[str]
    system: str

    @property
    def slug(self) -> str:
        """Name the device for a file name: `amd-epyc-2c`."""
        return re.sub(r"[^a-z0-9]+", "-", self.cpu.lower()).strip("-") + f"-{self.cores}c"


def this_machine() -> Machine:
    """Describe the machine; what its system does not tell stays empty."""
    info = _read(Path("/proc/cpuinfo"))
    name = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", info, re.MULTILINE)
    wanted = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    return Machine(
        cpu=name.group(1).strip() if name else platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        instruction_sets=[flag for flag in wanted if flags and flag in flags.group(1).split()],
        system=f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
    )


def library_versions() -> dict[str, str]:
    """Tell the versions of Python and of mezzo's libraries; the peers live in environments of their own."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def commit() -> str:
    """Name the commit that is checked out, with `+changes` if tracked files differ from it."""
    described = _git("rev-parse", "--short=12", "HEAD")
    return described + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*args: str) -> str:
    done = subprocess.run(["git", *args], cwd=_REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the record names a commit, but git failed: {done.stderr.strip()}")
    return done.stdout.strip()


def busy_cores(during_s: float = 1.0) -> float | None:
    """Count the cores that anything on the machine keeps busy for a while; None where that cannot be told."""
    before = _cpu_seconds()
    started_at = time.perf_counter()
    time.sleep(during_s)
    after = _cpu_seconds()
    if before is None or after is None:
        return None
    return (after - before) / (time.perf_counter() - started_at)


def _cpu_seconds() -> float | None:
    """Sum of busy time of all cores: user, nice, system, irq, softirq and stolen time, not idle or iowait."""
    fields = _read(Path("/proc/stat")).split("\n", 1)[0].split()[1:9]
    if len(fields) < 8:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float | None:
    """Sum the memory of a process and its descendants, shared pages divided among those that share them."""
    total_kib = 0
    for current in tree(pid):
        share = re.search(r"^Pss:\s+(\d+) kB$", _read(Path(f"/proc/{current}/smaps_rollup")), re.MULTILINE)
        total_kib += int(share.group(1)) if share else 0
    return round(total_kib / 1024, 1) if total_kib else None


def cpu_seconds(pid: int) -> float:
    """Sum the processor time that a process and its living descendants have taken."""
    ticks = 0
    for current in tree(pid):
        # Behind the name, which may hold anything: utime and stime are fields 14 and 15.
        fields = _read(Path(f"/proc/{current}/stat")).rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """Return a process and its living descendants."""
    pids = [pid]
    for current in pids:
        for children in Path(f"/proc/{current}/task").glob("*/children"):
            pids += map(int, _read(children).split())
    return pids


def public_command(args: Sequence[str], secrets: Sequence[str] = ()) -> str:
    """Write a command line for the record: without keys, absolute paths shortened to their last part."""
    words = []
    for arg in args:
        word = re.sub(r"(?<![\w:/.])~?/(?:[^\s/='\"]+/)*([^\s/='\"]+)", r"\1", arg)
        for secret in secrets:
            word = word.replace(secret, "***")
        words.append(f"'{word}'" if re.search(r"[\s\"*]", word) else word)
    return " ".join(words)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
