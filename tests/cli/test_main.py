"""The command as a whole: quick, documented, and without tracebacks."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mezzo as package
from tests.cli.conftest import Run

COMMANDS = ("serve", "chat", "pull", "models", "usage", "invoices")


def test_the_version_is_the_packages(mezzo: Run) -> None:
    done = mezzo("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"mezzo {package.__version__}\n", "")


def test_help_lists_the_commands_also_without_arguments(mezzo: Run) -> None:
    for args in (("--help",), ("-h",), ()):
        out = mezzo(*args)
        text = out.stdout + out.stderr
        assert all(f" {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_shows_an_example_and_describes_every_option(mezzo: Run, command: str) -> None:
    done = mezzo(command, "--help", COLUMNS="200")
    assert done.returncode == 0
    assert f"mezzo {command}" in done.stdout.split("Usage:")[1].partition("\n")[2]
    for line in done.stdout.splitlines():
        if "│ --" in line:
            described = line.strip("│ ").split("  ")
            assert len([part for part in described if part.strip()]) >= 2, line
            assert line.rstrip("│ ")[-1] in ".)", line


def test_options_that_are_settings_carry_the_settings_description_and_default(mezzo: Run) -> None:
    text = " ".join(mezzo("serve", "--help", COLUMNS="250").stdout.split())
    assert "Port to listen on; 0 takes a free one. (8000)" in text
    assert "Address to listen on; 0.0.0.0 for every network of this machine. (127.0.0.1)" in text


def test_nothing_heavy_is_imported_to_show_help_or_version() -> None:
    program = (
        "import sys, runpy\n"
        "sys.argv = ['mezzo', sys.argv[1]]\n"
        "try: runpy.run_module('mezzo', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.argv[0:0] + sorted(sys.modules) if m in "
        "('torch', 'numpy', 'fastapi', 'pydantic', 'httpx', 'structlog', 'prompt_toolkit', 'asyncio')])"
    )
    for flag in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", program, flag], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("srve",), "No such command 'srve'"),
        (("serve", "--prot", "1"), "No such option"),
        (("serve", "--port", "http"), "Invalid value for '--port'"),
        (("serve", "--port", "70000"), "error: --port: input should be less than or equal to 65535"),
        (("serve", "--device", "gpu"), "error: --device: a device is auto, cpu, cuda, cuda:N or mps"),
        (("serve", "--config", "nowhere.toml"), "error: --config: there is no file 'nowhere.toml'"),
    ],
)
def test_a_wrong_call_exits_with_2_and_says_why(mezzo: Run, args: tuple[str, ...], said: str) -> None:
    done = mezzo(*args)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_misspelt_setting_in_the_environment_stops_every_command(mezzo: Run) -> None:
    for command in (("models",), ("serve",), ("pull",), ("chat", "hello")):
        done = mezzo(*command, MEZZO_WEIGHT="nano")
        assert done.returncode == 2
        assert done.stderr == (
            "error: MEZZO_WEIGHT in the environment is not a setting. Did you mean MEZZO_WEIGHTS?\n"
        )
