"""One server for all tests that do no harm to it, and the clients that talk to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from mistralai.client import Mistral
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mezzo.weights import CheckpointFolder
from tests.sdk.serving import KEY, Serving, serving

StartServer = Callable[..., Serving]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here talks to a server process with real weights."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def server(
    weights_home: Path, nano_folder: CheckpointFolder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """The server that all tests share; whoever uses it leaves it idle."""
    with serving(weights_home, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def start(weights_home: Path, nano_folder: CheckpointFolder, tmp_path: Path) -> Iterator[StartServer]:
    """Return a function that starts a server of one's own, to be killed at will."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(weights_home, tmp_path, **settings))


@pytest.fixture
def mistral(server: Serving) -> Iterator[Mistral]:
    with Mistral(api_key=KEY, server_url=server.url) as client:
        yield client


@pytest.fixture(scope="session")
def tokenizer(nano_folder: CheckpointFolder) -> PreTrainedTokenizerFast:
    """The same tokenizer and chat template as `transformers` reads them."""
    return AutoTokenizer.from_pretrained(nano_folder.path)
