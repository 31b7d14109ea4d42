"""An engine in a benchmark's own process, set up as the engine process is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from mezzo.engine.config import EngineConfig
from mezzo.engine.launch import WORKER_ENVIRONMENT
from mezzo.engine.loader import load_runner
from mezzo.engine.runner import Runner
from mezzo.prompt.template_encoder import TemplateEncoder


def run_as_the_engine_does() -> None:
    """Start this process again with the engine's environment: libraries read it when they are loaded."""
    environment = WORKER_ENVIRONMENT | os.environ
    if environment != dict(os.environ):
        os.execve(sys.executable, sys.orig_argv, environment)


def load(folder: Path, **choices: Any) -> tuple[TemplateEncoder, EngineConfig, Runner]:
    """Load a converted checkpoint; `choices` are fields of EngineConfig."""
    config = EngineConfig(folder=str(folder), **choices)
    return TemplateEncoder.from_folder(folder), config, load_runner(config, lambda _loaded, _total: None)
