"""Serve a FakeBackend in a process of its own: `python -m tests.server.serve_fake '{"script": {...}}'`.

Prints one line of JSON for each thing that happens.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mezzo.backends.base import BackendUnavailable
from mezzo.server.run import serve_with
from mezzo.settings import Settings
from tests.databases import new_sqlite
from tests.fakes import FakeBackend, Script

made: list[FakeBackend] = []


def tell(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def main() -> None:
    options = json.loads(sys.argv[1])
    failure = options.pop("start_failure", None)

    def make_backend(folder: Any, settings: Settings) -> FakeBackend:
        tell("made", web_framework="fastapi" in sys.modules or "uvicorn" in sys.modules)
        made.append(
            FakeBackend(
                Script(**options.get("script", {})),
                start_s=options.get("start_s", 0),
                start_failure=BackendUnavailable(failure) if failure else None,
            )
        )
        return made[-1]

    weights = {
        "mistral-medium-2505": SimpleNamespace(path=Path("a")),
        "mistral-medium-2508": SimpleNamespace(path=Path("a")),
        "mistral-medium-3-5": SimpleNamespace(path=Path("b")),
    }
    folder = tempfile.TemporaryDirectory()
    home = Path(folder.name)
    given = {"home": home, "port": 0, "api_key": "mz-test-key-0123456789"} | options.get("settings", {})
    if "port" in options:
        given["port"] = options["port"]
    if "database_url" not in given:
        given["database_url"] = new_sqlite(home)
    settings = Settings(**given)
    try:
        serve_with(make_backend, settings, weights=weights, on_ready=lambda url: tell("ready", url=url))
    except BackendUnavailable as error:
        tell("unavailable", reason=str(error))
    folder.cleanup()
    tell(
        "stopped",
        starts=[backend.num_starts for backend in made],
        stops=[backend.num_stops for backend in made],
    )


if __name__ == "__main__":
    main()
