"""What goes into the record about the machine, and what does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from benchmarks.machine import Machine, busy_cores, memory_mib, public_command


@pytest.mark.parametrize(
    ("args", "written"),
    [
        (["python", "-m", "x", "--rounds", "5"], "python -m x --rounds 5"),
        (["/home/me/venv/bin/vllm", "serve", "/data/nano hf"], "vllm serve 'nano hf'"),
        (["--start", "a=/home/me/run.sh --port 1"], "--start 'a=run.sh --port 1'"),
        (["a=http://127.0.0.1:80/v1,KEY"], "'a=http://127.0.0.1:80/v1,***'"),
        (["~/venv/bin/python", "benchmarks/peers/x.py"], "python benchmarks/peers/x.py"),
    ],
)
def test_a_recorded_command_holds_no_key_and_no_private_path(args: list[str], written: str) -> None:
    assert public_command(args, secrets=["KEY"]) == written


def test_a_device_has_a_name_fit_for_a_file() -> None:
    machine = Machine("AMD EPYC 9654 96-Core Processor", 4, 16.0, [], "Linux")
    assert machine.slug == "amd-epyc-9654-96-core-processor-4c"


def test_busy_cores_counts_another_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinner:
        try:
            busy = busy_cores(0.5)
        finally:
            spinner.kill()
    assert busy is not None
    assert busy > 0.4  # the spinner may have to share its core


def test_memory_includes_descendants() -> None:
    child = "import time; held = bytearray(64 << 20); print(flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            memory = memory_mib(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert memory is not None
    assert memory > 64
