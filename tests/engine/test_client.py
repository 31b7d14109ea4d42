"""A real engine process on a tiny checkpoint: started, asked, aborted, killed, orphaned."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mezzo.engine.client import EngineClient, EngineDied, EngineFull, EngineStream, EngineUnavailable, State
from mezzo.engine.config import EngineConfig
from mezzo.engine.messages import HEADER, AddRequest, Ready, Start, decode_from_engine, encode_frame
from mezzo.engine.sampling_params import SamplingParams
from tests.tiny import VOCABULARY, Collected, load, make_core, make_request, run, write_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

LONG = 100_000
"""Tokens that no test waits for: a stream of so many runs until it is stopped."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with room for streams that are still running when a test has done what it wants."""
    return write_checkpoint(tmp_path_factory.mktemp("long"), max_position_embeddings=200_000)


def make_client(folder: Path, *, max_num_seqs: int = 4, max_queue: int = 4, **client: Any) -> EngineClient:
    config = EngineConfig(
        folder=str(folder),
        device="cpu",
        dtype="float32",
        threads=1,
        max_num_seqs=max_num_seqs,
        kv_cache_tokens=500_000,
        block_size=16,
    )
    return EngineClient(config, max_queue=max_queue, start_timeout_s=60, **client)


@asynccontextmanager
async def started(client: EngineClient) -> AsyncIterator[EngineClient]:
    client.spawn()
    try:
        await client.start(VOCABULARY)
        yield client
    finally:
        await client.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(folder: Path) -> AsyncIterator[EngineClient]:
    async with started(make_client(folder)) as client:
        yield client


async def read(stream: EngineStream) -> Collected:
    collected = Collected()
    async for outputs in stream:
        collected.take(outputs)
    return collected


async def begun(client: EngineClient, request: AddRequest) -> tuple[EngineStream, AsyncIterator[Any]]:
    """Submit, and return when the first output has arrived."""
    stream = await client.submit(request)
    outputs = aiter(stream)
    await asyncio.wait_for(anext(outputs), 20)
    return stream, outputs


async def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_ready_says_what_was_loaded(client: EngineClient) -> None:
    ready = client.ready
    assert client.state is State.READY
    assert ready is not None
    assert (ready.device, ready.dtype, ready.threads) == ("cpu", "float32", 1)
    assert (ready.num_blocks, ready.block_size) == (31250, 16)
    assert ready.max_context_length == 200_000
    assert ready.weights_bytes == sum(p.numel() * 4 for p in load(Path(client.config.folder)).parameters())
    assert ready.kv_cache_bytes == 31250 * 16 * 2 * 2 * 2 * 8 * 4
    assert ready.load_s > 0


async def test_a_process_gives_the_text_of_the_core(client: EngineClient) -> None:
    """Alone, and several at once with several choices."""
    requests = [
        make_request(
            f"same{i}", bytes(range(40, 50 + i)), n=1 + i % 2, temperature=0.4 * i, seed=i, max_tokens=20
        )
        for i in range(3)
    ]
    expected = run(make_core(load(Path(client.config.folder)), max_num_seqs=4), *requests)
    streams = [await client.submit(request) for request in requests]
    collected = await asyncio.gather(*map(read, streams))
    texts = {key: text for each in collected for key, text in each.texts.items()}
    assert texts == expected.texts
    assert client.stats is not None
    assert client.stats.num_running == 0
    assert client.stats.num_free_blocks == client.stats.num_blocks


async def test_no_tokens_at_all_is_an_answer_too(client: EngineClient) -> None:
    collected = await read(await client.submit(make_request("none", max_tokens=0, n=2)))
    assert set(collected.reasons.values()) == {"length"}


async def test_abort_ends_the_stream_and_frees_its_place(client: EngineClient) -> None:
    other, other_outputs = await begun(client, make_request("other", max_tokens=LONG))
    _, outputs = await begun(client, make_request("gone", n=2, max_tokens=LONG))
    client.abort("gone")
    client.abort("gone")
    client.abort("never was")
    reasons = [o.finish_reason for batch in [b async for b in outputs] for o in batch if o.finish_reason]
    assert reasons == ["abort", "abort"]
    await until(lambda: client.stats is not None and client.stats.num_running == 1)
    assert other.num_unfinished == 1
    client.abort("other")
    async for _ in other_outputs:
        pass
    await until(lambda: client.stats is not None and client.stats.num_free_blocks == client.stats.num_blocks)


async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(client: EngineClient) -> None:
    """Four places in the batch and four in the queue, counted in choices."""
    streams = [await client.submit(make_request(f"full{i}", n=2, max_tokens=LONG)) for i in range(3)]
    with pytest.raises(EngineFull, match="6 sequences are running or queued"):
        await client.submit(make_request("too many", n=3))
    streams.append(await client.submit(make_request("full3", n=2, max_tokens=LONG)))
    with pytest.raises(EngineFull, match="8 sequences"):
        await client.submit(make_request("one more"))
    for stream in streams:
        client.abort(stream.request.request_id)
    for stream in streams:
        assert set((await read(stream)).reasons.values()) == {"abort"}
    assert (await read(await client.submit(make_request("again", max_tokens=3)))).num_tokens == {
        ("again", 0): 3
    }


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_that_stop_a_server_leave_the_engine_alone(
    client: EngineClient, signal_number: int
) -> None:
    assert client.pid is not None
    _, outputs = await begun(client, make_request("during", max_tokens=LONG))
    os.kill(client.pid, signal_number)
    for _ in range(3):
        await asyncio.wait_for(anext(outputs), 20)
    client.abort("during")
    async for _ in outputs:
        pass
    assert client.num_restarts == 0


async def test_a_request_that_the_engine_refuses_ends_with_an_error(client: EngineClient) -> None:
    """The server checks first; should the two disagree, the client still gets an end."""
    collected = await read(await client.submit(make_request("bad", prompt=[10**6], n=2)))
    assert set(collected.reasons.values()) == {"error"}


async def test_kill_9_fails_every_running_stream_and_the_next_request_is_answered(
    client: EngineClient,
) -> None:
    """Last of those that share a process."""
    begun_streams = [await begun(client, make_request(f"victim{i}", max_tokens=LONG)) for i in range(3)]
    queued = await client.submit(make_request("queued", n=4, max_tokens=LONG))
    await until(lambda: client.stats is not None and client.stats.num_requests >= queued.number)
    old_pid = client.pid
    assert old_pid is not None
    os.kill(old_pid, signal.SIGKILL)

    async def drain(outputs: Any) -> None:
        async for _ in outputs:
            pass

    for outputs in [*(outputs for _, outputs in begun_streams), queued]:
        with pytest.raises(EngineDied):
            await asyncio.wait_for(drain(outputs), 10)
    answer = await asyncio.wait_for(read(await client.submit(make_request("next", max_tokens=3))), 30)
    assert answer.num_tokens == {("next", 0): 3}
    assert client.num_restarts == 1
    assert client.pid != old_pid
    assert not is_alive(old_pid)


async def test_what_was_sent_to_a_dead_engine_goes_to_the_next_one(client: EngineClient) -> None:
    """The server cannot know of the death yet, and the request never was in anybody's hands."""
    _, outputs = await begun(client, make_request("victim", max_tokens=LONG))
    restarts = client.num_restarts
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    unread = await client.submit(make_request("unread", max_tokens=3))
    aborted = await client.submit(make_request("aborted", max_tokens=3))
    client.abort("aborted")
    assert client.num_restarts == restarts, "the death was noticed too early to test what this is about"
    answer = await asyncio.wait_for(read(unread), 30)
    assert answer.num_tokens == {("unread", 0): 3}
    assert client.num_restarts == restarts + 1
    for dead in (outputs, aborted):
        with pytest.raises(EngineDied):
            async for _ in dead:
                pass


async def test_stop_ends_streams_and_process_and_refuses_what_comes_after(folder: Path) -> None:
    progress: list[tuple[int, int]] = []
    client = make_client(folder, on_loading=lambda loaded, total: progress.append((loaded, total)))
    async with started(client):
        pid = client.pid
        assert pid is not None
        assert progress[-1][0] == progress[-1][1] > 0
        _, outputs = await begun(client, make_request("running", max_tokens=LONG))
        await client.stop()
        with pytest.raises(EngineDied):
            async for _ in outputs:
                pass
        assert not is_alive(pid)
        with pytest.raises(EngineUnavailable, match="the server is stopping"):
            await client.submit(make_request("late"))
        await client.stop()


async def test_stop_before_start_leaves_no_process(folder: Path) -> None:
    client = make_client(folder)
    client.spawn()
    pid = client.pid
    assert pid is not None
    await client.stop()
    assert not is_alive(pid)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("config.json", "{", "config.json cannot be read"),
        ("model.safetensors", "x" * 100, "model.safetensors is damaged"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}', "lacks b.safetensors"),
    ],
)
async def test_a_checkpoint_that_cannot_load_is_unavailable_with_a_sentence(
    tmp_path: Path, file: str, content: str, sentence: str
) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / file).write_text(content)
    client = make_client(tmp_path)
    client.spawn()
    try:
        with pytest.raises(EngineUnavailable, match=sentence):
            await client.start(VOCABULARY)
        assert client.state is State.FAILED
        with pytest.raises(EngineUnavailable, match=sentence):
            await client.submit(make_request())
    finally:
        await client.stop()


async def test_an_engine_that_dies_while_loading_is_unavailable_and_not_tried_again(folder: Path) -> None:
    client = make_client(folder)
    client.spawn()
    try:
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        with pytest.raises(
            EngineUnavailable, match="the engine process was killed by signal 9 while loading"
        ):
            await client.start(VOCABULARY)
        assert client.num_restarts == 0
    finally:
        await client.stop()


@pytest.mark.parametrize("num_requests", [0, 3], ids=["idle", "busy"])
async def test_an_engine_leaves_when_the_socket_closes(folder: Path, num_requests: int) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(  # noqa: ASYNC220 - the test waits for nothing else
            [sys.executable, "-m", "mezzo.engine.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    with ours, process:
        try:
            ours.settimeout(60)
            ours.sendall(encode_frame(Start(make_client(folder).config, VOCABULARY)))
            received = ours.makefile("rb")
            while not isinstance(_next_message(received), Ready):
                pass
            for i in range(num_requests):
                params = SamplingParams(max_tokens=LONG)
                ours.sendall(
                    encode_frame(AddRequest(request_id=str(i), prompt_token_ids=[1, 2], params=params))
                )
            if num_requests:
                _next_message(received)
            received.close()
            ours.close()
            assert process.wait(timeout=2) == 0
        finally:
            process.kill()


def _next_message(received: Any) -> Any:
    return decode_from_engine(received.read(HEADER.unpack(received.read(HEADER.size))[0]))


async def test_a_server_that_is_killed_leaves_no_orphan(folder: Path) -> None:
    script = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from tests.engine.test_client import LONG, begun, make_client
        from tests.tiny import VOCABULARY, make_request

        async def main():
            client = make_client(Path(sys.argv[1]))
            client.spawn()
            await client.start(VOCABULARY)
            await begun(client, make_request(max_tokens=LONG))
            print(client.pid, flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
        """
    )
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", script, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [Path(__file__).parents[2], *sys.path]))},
    ) as server:
        try:
            assert server.stdout is not None
            # Log lines come first; the process id is the only line of digits.
            engine_pid = next(int(line) for line in server.stdout if line.strip().isdigit())
        finally:
            server.kill()
    await until(lambda: not is_alive(engine_pid), timeout_s=2)
