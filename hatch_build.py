"""Compiles the CPU kernels when mezzo is installed. Without a C compiler it installs all the same, and is slower."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = Path("src/mezzo/model/kernels")
_FLAGS = ["-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread", "-ffp-contract=off", "-fno-math-errno"]
# GCC would turn chains of sums into trees that need more registers than there are; others do not know the flag.
_FLAGS_OF_SOME = ["-fno-tree-reassoc"]


class CompileKernels(BuildHookInterface):  # type: ignore[misc]
    """Puts the compiled library beside its sources, and into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or sys.platform == "win32":
            return
        library = _FOLDER / "libmezzo_kernels.so"
        error = compile_kernels(Path(self.root), library)
        if error is not None:
            self.app.display_warning(f"The CPU kernels were not compiled; decoding will be slower. {error}")
            return
        build_data["artifacts"].append(str(library))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def compile_kernels(root: Path, library: Path) -> str | None:
    """Compile with $CC, or cc. Returns what went wrong."""
    sources = [str(path.relative_to(root)) for path in sorted((root / _FOLDER / "csrc").glob("*.c"))]
    compiler = shlex.split(os.environ.get("CC", "cc"))
    message = ""
    for flags in (_FLAGS + _FLAGS_OF_SOME, _FLAGS):
        command = [*compiler, *flags, "-o", str(library), *sources, "-lm"]
        try:
            run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
        except OSError as error:
            return f"{compiler[0]}: {error.strerror}"
        if run.returncode == 0:
            return None
        message = run.stderr.strip()
    return message
