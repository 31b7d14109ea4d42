"""The servers of `benchmarks.gateway`: the upstream that does nothing, and what stands before it."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path

from benchmarks import machine, noop_upstream
from benchmarks.servers import ServerSpec

MODEL = "mistral-medium-latest"
MODEL_ID = "mistral-medium-2505"
LITELLM_KEY = "sk-benchmark-0123456789"
MEZZO_KEY = "mz-benchmark-0123456789"
_UNREACHED = 10**9


def make_specs(folder: Path, *, litellm: Path | None) -> list[ServerSpec]:
    """Describe the servers, with configurations of theirs in `folder`."""
    upstream = noop_spec()
    specs = [upstream]
    if litellm is not None:
        specs.append(_litellm(litellm, folder, upstream.url))
    return [*specs, _mezzo(folder, upstream.url)]


def noop_spec() -> ServerSpec:
    """Describe an upstream that does nothing, on a free port."""
    port = _free_port()
    start = shlex.join([sys.executable, "-m", "benchmarks.noop_upstream", "--port", str(port)])
    about = "no-op, uvloop and httptools"
    return ServerSpec("upstream", f"http://127.0.0.1:{port}", None, noop_upstream.MODEL, about, start)


def _litellm(executable: Path, folder: Path, base_url: str) -> ServerSpec:
    """One worker without a database, a key of its own, and no look at the list of prices on the web."""
    port, config = _free_port(), folder / "litellm.yaml"
    upstream = {"model": f"openai/{noop_upstream.MODEL}", "api_base": f"{base_url}/v1", "api_key": "none"}
    # JSON is YAML.
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": MODEL, "litellm_params": upstream}],
                "general_settings": {"master_key": LITELLM_KEY},
            }
        )
    )
    command = [
        "env",
        "LITELLM_LOCAL_MODEL_COST_MAP=True",
        str(executable),
        *("--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
    ]
    about = f"LiteLLM {_litellm_version(executable)}, one worker, no database"
    return ServerSpec("litellm", f"http://127.0.0.1:{port}", LITELLM_KEY, MODEL, about, shlex.join(command))


def _litellm_version(executable: Path) -> str:
    """Ask the interpreter beside the executable: its own `--version` loads half the program."""
    code = "import importlib.metadata as m; print(m.version('litellm'))"
    done = subprocess.run(
        [executable.with_name("python"), "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _mezzo(folder: Path, base_url: str) -> ServerSpec:
    """With everything on that has a cost, and limits that are counted and never reached."""
    port, config = _free_port(), folder / "mezzo.toml"
    config.touch()  # so that none of the working directory is read
    settings = {
        "config": config,
        "home": folder / "mezzo",
        "port": port,
        "api_key": MEZZO_KEY,
        "models": json.dumps({MODEL_ID: f"upstream:{base_url}/v1#{noop_upstream.MODEL}"}),
        "requests_per_minute": _UNREACHED,
        "tokens_per_minute": _UNREACHED,
        "log_format": "json",
        "server_timing": "true",
    }
    variables = [f"MEZZO_{name.upper()}={value}" for name, value in settings.items()]
    command = ["env", *variables, sys.executable, "-m", "mezzo", "serve"]
    about = f"mezzo {machine.commit()}, keys, limits, books in SQLite, JSON logs"
    return ServerSpec("mezzo", f"http://127.0.0.1:{port}", MEZZO_KEY, MODEL, about, shlex.join(command))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
