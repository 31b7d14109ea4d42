"""`mezzo serve`, `models` and `pull` where another server answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mezzo.cli.output import CommandFailed
from mezzo.cli.serve import located
from tests.backends.scripted_upstream import (
    DONE,
    OPENAI_MODELS,
    ScriptedUpstream,
    chunk,
    scripted_upstream,
    usage,
)
from tests.cli.conftest import Run

KEY = "the-key-of-the-upstream"


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as server:
        server.models = OPENAI_MODELS
        server.script = [chunk("Hello!", "stop", **usage(2, 1)), DONE]
        yield server


@pytest.mark.slow
def test_it_is_served_without_weights_and_no_log_shows_its_key(
    upstream: ScriptedUpstream, environment: dict[str, str], tmp_path: Path
) -> None:
    models = {
        "mistral-medium-2505": f"upstream:{upstream.base_url}#there",
        "mistral-medium-2508": f"upstream:{upstream.base_url}#there",
        "mistral-medium-3-5": f"upstream:{upstream.base_url}",
    }
    environment |= {
        "MEZZO_MODELS": json.dumps(models),
        "MEZZO_UPSTREAM_API_KEY": KEY,
        "MEZZO_API_KEY": "mine-0123456789abcdef",
    }
    command = [sys.executable, "-m", "mezzo", "serve", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        banner = ""
        while "Ctrl-C stops the server" not in banner:
            line = server.stdout.readline()
            assert line, server.stderr.read()
            banner += line
        url = next(line.split()[1] for line in banner.splitlines() if line.startswith("  URL"))
        host = upstream.base_url.split("/")[2]
        assert f"by {host}#there: upstream {host}" in banner
        headers = {"authorization": "Bearer mine-0123456789abcdef"}
        with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=20) as client:
            for model, sent in (
                ("mistral-medium-2508", "there"),
                ("mistral-medium-3-5", "mistral-medium-3-5"),
            ):
                body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
                answer = client.post("/v1/chat/completions", json=body)
                assert answer.json()["choices"][0]["message"]["content"] == "Hello!"
                assert upstream.bodies[-1]["model"] == sent
            text = client.get("/metrics").text
            assert text.count(f'mezzo_backend_ready{{weights="{host}#there"}} 1.0') == 1
            upstream.status, upstream.headers = 401, ""
            upstream.body = json.dumps({"error": f"wrong key {KEY}"}).encode()
            assert client.post("/v1/chat/completions", json=body).status_code == 503
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
        log = server.stderr.read()
    assert "HTTP 401" in log
    assert KEY not in log + banner
    assert f"authorization: bearer {KEY}" in upstream.heads[-1]
    assert not (tmp_path / "home" / "weights").exists()


def test_a_url_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"^models: upstream: is not followed by an http") as refused:
        located("upstream:nowhere", "mistral-medium-2505", tmp_path)
    assert refused.value.exit_code == 2
    assert "upstream:http://HOST:PORT/v1#MODEL" in str(refused.value.hint)


def test_there_is_nothing_to_list_as_fetched_and_nothing_to_pull(mezzo: Run) -> None:
    models = json.dumps({"mistral-medium-2505": "upstream:http://host/v1"})
    (row, *_) = json.loads(mezzo("models", "--json", MEZZO_MODELS=models).stdout)
    assert (row["weights"], row["is_fetched"]) == ("upstream:http://host/v1", None)
    pulled = mezzo("pull", MEZZO_MODELS=models)
    assert (pulled.returncode, pulled.stdout) == (0, "")
