"""`mezzo serve` up to the server's start, and what it prints then."""

from __future__ import annotations

import errno
import json
import shlex
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mezzo.catalog.cards import load_catalog
from mezzo.cli.output import CommandFailed
from mezzo.cli.serve import answering, banner, check_port, is_loopback, local_url
from mezzo.settings import Settings
from mezzo.weights import CheckpointFolder
from tests.cli.conftest import Run

NANO = CheckpointFolder(Path("somewhere"), "nano", "SmolLM2-135M-Instruct (Apache-2.0)")
LABEL = "nano: SmolLM2-135M-Instruct (Apache-2.0)"


class TestBeforeTheServer:
    def test_a_port_in_use_is_one_sentence_and_nothing_is_fetched(self, mezzo: Run, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = busy.getsockname()[1]
            done = mezzo("serve", "--port", str(port))
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            f"error: port {port} on 127.0.0.1 is in use by another program",
            f"       Stop that program, or choose another port: mezzo serve --port {port + 1}",
        ]
        assert not (tmp_path / "home").exists()

    def test_unknown_weights_are_refused(self, mezzo: Run) -> None:
        done = mezzo("serve", "--port", "0", "--weights", "nothing here")
        assert done.returncode == 1
        assert done.stderr.startswith("error: There are no weights called 'nothing here'")

    def test_an_address_of_another_machine_is_refused(self, mezzo: Run) -> None:
        done = mezzo("serve", "--host", "192.0.2.1", "--port", "0")
        assert done.returncode == 2
        assert done.stderr.startswith("error: 192.0.2.1 is not an address of this machine")

    def test_listening_beyond_this_machine_is_allowed_and_noted(self, mezzo: Run) -> None:
        done = mezzo("serve", "--host", "0.0.0.0", "--port", "0", "--weights", "nothing here")
        assert "Note: listening on 0.0.0.0" in done.stderr
        assert "error: There are no weights" in done.stderr

    def test_a_home_that_cannot_be_written_is_explained(self, mezzo: Run, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        done = mezzo("serve", "--port", "0", "--home", str(tmp_path / "file" / "home"))
        assert done.returncode == 1
        assert "API key cannot be kept in" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_port_is_free_again_as_soon_as_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = busy.getsockname()[1]
            with pytest.raises(CommandFailed) as refused:
                check_port("127.0.0.1", port)
            assert isinstance(refused.value.__cause__, OSError)
            assert refused.value.__cause__.errno == errno.EADDRINUSE
        check_port("127.0.0.1", port)
        check_port("localhost", 0)


class TestBanner:
    def test_the_curl_line_is_one_shell_command_that_holds_the_request(self) -> None:
        text = banner("http://127.0.0.1:8000", "it's a key", {LABEL: ["mistral-medium-latest", "b"]})
        (line,) = [line for line in text.splitlines() if line.startswith("curl")]
        words = shlex.split(line)
        assert words[1] == "http://127.0.0.1:8000/v1/chat/completions"
        assert "Authorization: Bearer it's a key" in words
        body = json.loads(words[-1])
        assert body["model"] == "mistral-medium-latest"
        assert body["messages"][0]["role"] == "user"
        assert 0 < body["max_tokens"] <= 200, "a small model may talk for minutes"

    def test_it_shows_url_key_names_and_weights(self) -> None:
        text = banner("http://127.0.0.1:8000", "mz-key", {LABEL: ["mistral-medium-latest", "b"]})
        for part in ("http://127.0.0.1:8000", "mz-key", "mistral-medium-latest, b", LABEL, "mezzo chat"):
            assert part in text

    def test_names_are_listed_with_the_weights_that_answer_current_ones_first(self) -> None:
        names = answering(Settings(), load_catalog(), {"mistral-medium-2505": NANO})
        assert names == {
            LABEL: [
                "mistral-medium-latest",
                "mistral-medium-2505",
                "mistral-medium",
                "mistral-medium-2312",
            ]
        }

    def test_retired_names_are_left_out_when_the_lifecycle_is_strict(self) -> None:
        catalog = load_catalog()
        names = answering(Settings(strict_lifecycle=True), catalog, {"mistral-medium-2505": NANO})
        retired = [card for card in catalog if card.lifecycle(datetime.now(UTC)) == "retired"]
        assert retired
        assert not set(names[LABEL]) & {name for card in retired for name in card.names}


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("http://[::]:8000", "http://[::1]:8000"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://10.0.0.5:80", "http://10.0.0.5:80"),
    ],
)
def test_a_server_on_every_address_is_reached_over_loopback(url: str, local: str) -> None:
    assert local_url(url) == local


def test_only_loopback_addresses_count_as_this_machine() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.5", "example.org", "127.0.0.1.example.org")))
