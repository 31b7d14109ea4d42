"""The real hub client against a hub on loopback: success, resumption, and each refusal in one sentence."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

from mezzo.weights import find_weights
from mezzo.weights.hub import HubRepository, choose_files

if TYPE_CHECKING:
    from conftest import Resolver

pytestmark = pytest.mark.slow  # a process per pull

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PAGE_BYTES = 1 << 16


@dataclass
class Hub:
    """Repositories by name (file -> content), errors by repository (status, code), and what was asked for.

    break_after     bytes of each file's body after which the connection is cut, or None
    """

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    break_after: int | None = None

    def environment(self) -> dict[str, str]:
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_XET": "1",
        }


class HubHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *arguments: Any) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        self.hub.asked.append(f"{self.command} {'/'.join(parts)}")
        is_api = parts[:2] == ["api", "models"]
        repository = "/".join(parts[2:4] if is_api else parts[:2])
        if repository.startswith("org/"):  # the client also asks for things that are no repository
            self.hub.tokens.add(self.headers.get("Authorization"))
        if repository in self.hub.refusals:
            status, code = self.hub.refusals[repository]
            return self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})
        files = self.hub.repositories.get(repository)
        if files is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        if not is_api:
            return self._send_file(files["/".join(parts[4:])], with_body=with_body)
        if parts[4] == "tree":
            return self._send_json([_tree_entry(name, content) for name, content in files.items()])
        if parts[5:] not in (["main"], [COMMIT]):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
        return self._send_json(
            {"id": repository, "sha": COMMIT, "siblings": siblings, "cardData": {"license": "apache-2.0"}}
        )

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, content: bytes, *, with_body: bool) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not with_body:
            return
        limit = self.hub.break_after
        if limit is not None and len(content) - start > limit:
            self.wfile.write(content[start : start + limit])
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(content[start:])


def _tree_entry(name: str, content: bytes) -> dict[str, Any]:
    return {
        "type": "file",
        "path": name,
        "size": len(content),
        "oid": hashlib.sha256(content).hexdigest()[:40],
    }


GOOD = {
    "config.json": b'{"model_type": "mistral"}',
    "tokenizer.json": b"{}",
    "model.safetensors": bytes(range(256)) * 4096,
    "pytorch_model.bin": b"a pickle",
    "consolidated.safetensors": b"the same again",
    "README.md": b"text",
    "onnx/model.safetensors": b"another",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(repositories={"org/good": dict(GOOD)})
    handler = type("Handler", (HubHandler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        yield hub
        server.shutdown()


@pytest.fixture
def pull(hub: Hub, tmp_path: Path, resolver: type[Resolver]) -> Callable[..., dict[str, str]]:
    """Return a function that resolves a spec in a new process, with the loopback hub as the only one."""

    def pull(spec: str, **environment: str) -> dict[str, str]:
        variables = {**hub.environment(), "HF_HOME": str(tmp_path / "hf"), **environment}
        answer, _ = resolver(spec, tmp_path / "home", **variables).result()
        return answer

    return pull


def test_repository_is_fetched_whole_and_without_pickles(
    hub: Hub, pull: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    answer = pull("hf:org/good", HF_TOKEN="hf_secret")
    path = Path(answer["path"])
    assert answer["description"] == "org/good (apache-2.0)"
    assert {file.name: file.read_bytes() for file in path.iterdir()} == {
        name: GOOD[name] for name in ("config.json", "tokenizer.json", "model.safetensors")
    }
    assert not any("pytorch_model" in line or "onnx" in line for line in hub.asked)
    assert hub.tokens == {"Bearer hf_secret"}
    found = find_weights("org/good", tmp_path / "home")
    assert found is not None
    assert (found.path, found.name) == (path, "org/good")
    assert find_weights("org/good@v2", tmp_path / "home") is None


def test_what_is_there_needs_no_network(hub: Hub, pull: Callable[..., dict[str, str]]) -> None:
    first = pull("hf:org/good")
    hub.asked.clear()
    assert pull("org/good") == first
    assert hub.asked == []
    assert pull("hf:org/good", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1") == first


def test_broken_download_is_not_found_and_the_next_one_completes_it(
    hub: Hub, pull: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    hub.break_after = PAGE_BYTES
    answer = pull("hf:org/good", HF_HUB_DOWNLOAD_TIMEOUT="2")
    assert "path" not in answer
    assert answer["error"] == "No network: the Hugging Face hub could not be reached for org/good."
    assert find_weights("org/good", tmp_path / "home") is None
    hub.break_after = None
    answer = pull("hf:org/good")
    assert (Path(answer["path"]) / "model.safetensors").read_bytes() == GOOD["model.safetensors"]


def test_full_disk_is_one_sentence_and_the_next_pull_completes(
    hub: Hub, pull: Callable[..., dict[str, str]], tmp_path: Path, resolver: type[Resolver]
) -> None:
    home = tmp_path / "home"
    environment = {**hub.environment(), "HF_HOME": str(tmp_path / "hf")}
    answer, _ = resolver("hf:org/good", home, max_file_bytes=200_000, **environment).result()
    assert answer["error"] == f"The disk with {home} is full: the weights could not be completed."
    assert find_weights("org/good", home) is None
    path = Path(pull("hf:org/good")["path"])
    assert (path / "model.safetensors").read_bytes() == GOOD["model.safetensors"]


def test_snapshot_that_lost_a_file_is_fetched_again(
    pull: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    path = Path(pull("hf:org/good")["path"])
    (path / "config.json").resolve().unlink()
    assert find_weights("org/good", tmp_path / "home") is None
    pull("hf:org/good")
    assert (path / "config.json").read_bytes() == GOOD["config.json"]


@pytest.mark.parametrize("offline", ["0", "1"])
def test_no_network_is_one_sentence_and_what_to_do(pull: Callable[..., dict[str, str]], offline: str) -> None:
    answer = pull("hf:org/good", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE=offline)
    assert answer["error"] == "No network: the Hugging Face hub could not be reached for org/good."
    assert "--weights FOLDER" in answer["hint"]


@pytest.mark.parametrize(
    ("refusal", "message", "hint"),
    [
        ((403, "GatedRepo"), "org/other is gated: its licence has to be accepted", "HF_TOKEN"),
        ((404, "RepoNotFound"), "org/other does not exist on the Hugging Face hub", "spelling"),
        ((401, "RepoNotFound"), "org/other does not exist on the Hugging Face hub", "HF_TOKEN"),
        ((501, ""), "The Hugging Face hub answered 501 when asked for org/other.", "try again"),
    ],
)
def test_refusal_of_the_hub_is_one_sentence(
    hub: Hub, pull: Callable[..., dict[str, str]], refusal: tuple[int, str], message: str, hint: str
) -> None:
    hub.refusals["org/other"] = refusal
    answer = pull("hf:org/other")
    assert answer["error"].startswith(message)
    assert "\n" not in answer["error"]
    assert hint in answer["hint"]


def test_revision_that_does_not_exist_is_named(pull: Callable[..., dict[str, str]]) -> None:
    assert pull("hf:org/good@v9")["error"] == "org/good has no revision v9 on the Hugging Face hub."


def test_name_that_the_hub_cannot_have_is_refused(pull: Callable[..., dict[str, str]]) -> None:
    assert pull("hf:org/na--me")["error"].startswith(
        "org/na--me is not a name that the Hugging Face hub can have"
    )


def test_repository_with_pickles_only_is_refused(hub: Hub, pull: Callable[..., dict[str, str]]) -> None:
    hub.repositories["org/old"] = {
        name: GOOD[name] for name in ("config.json", "tokenizer.json", "pytorch_model.bin")
    }
    assert pull("hf:org/old")["error"].startswith("org/old has no *.safetensors files")


def test_repository_that_is_no_checkpoint_is_refused_by_what_it_lacks(
    hub: Hub, pull: Callable[..., dict[str, str]]
) -> None:
    hub.repositories["org/part"] = {"config.json": b"{}", "model.safetensors": b"x"}
    assert pull("hf:org/part")["error"].endswith("it lacks tokenizer.json.")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "consolidated.safetensors"], ["model.safetensors"]),
        (["consolidated.safetensors", "params.json", "tekken.json"], None),
        (
            [
                *("consolidated-00001-of-00002.safetensors", "consolidated-00002-of-00002.safetensors"),
                *("consolidated.safetensors.index.json", "params.json", "SYSTEM_PROMPT.txt"),
                *("processor_config.json", "preprocessor_config.json", "config.json"),
            ],
            None,
        ),
        (
            [
                *("model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"),
                *("consolidated-1.safetensors", "consolidated.safetensors.index.json"),
            ],
            ["model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"],
        ),
        (
            ["pytorch_model.bin", "model.pt", "a.py", "sub/config.json", "tokenizer.model.v3"],
            ["tokenizer.model.v3"],
        ),
        (["chat_template.jinja", "special_tokens_map.json", "generation_config.json"], None),
    ],
)
def test_choose_files(names: list[str], chosen: list[str] | None) -> None:
    assert list(choose_files(dict.fromkeys(names, 1))) == (names if chosen is None else chosen)


def test_revisions_have_keys_of_their_own_without_separators() -> None:
    revisions = ["main", "a/b", "a%2Fb", "a_b"]
    keys = {HubRepository("org/name", revision).key for revision in revisions}
    assert len(keys) == len(revisions)
    assert not any("/" in key for key in keys)
