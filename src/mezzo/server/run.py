"""Run a server in this process until it is stopped.

What is slow starts first: the engine processes are on their way before the web framework is imported, which
takes a good part of a second, so both happen at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from mezzo.backends.base import Backend
from mezzo.backends.router import Router
from mezzo.engine.launch import EngineProcess, launch_engine
from mezzo.kit.heap import growing_heap
from mezzo.kit.logging import configure_logging
from mezzo.settings import Settings
from mezzo.weights.upstream import UpstreamModel

if TYPE_CHECKING:
    from mezzo.server.services import Services
    from mezzo.server.uvicorn_server import ApiServer
    from mezzo.weights.folder import CheckpointFolder

# The thread that writes the books needs the interpreter a dozen times in a transaction of half a millisecond, and a
# busy event loop keeps it for as long as this each time. With the default, 5 ms, requests would wait for tens of them.
_SWITCH_INTERVAL_S = 0.0002

BackendFactory = Callable[["CheckpointFolder", Settings], Backend]


def serve(
    settings: Settings,
    *,
    weights: Mapping[str, CheckpointFolder | UpstreamModel],
    on_ready: Callable[[str], None],
    launch: Callable[[], EngineProcess] = launch_engine,
) -> None:
    """Serve `weights` (folders or upstreams by model card id) and block until stopped by SIGINT or SIGTERM.

    on_ready: called once with the server's URL, when a request would be answered. launch: starts engine processes.
    Raises: OSError if the address cannot be listened on; BackendUnavailable if weights cannot be loaded;
    mezzo.kit.secrets.MachineKeyError.
    """

    def make_backend(folder: CheckpointFolder, settings: Settings) -> Backend:
        from mezzo.backends.embedded import make_embedded_backend  # noqa: PLC0415  slow, and the engine is on its way

        return make_embedded_backend(folder, settings, launch=launch)

    serve_with(make_backend, settings, weights=weights, on_ready=on_ready)


def serve_with(
    backend_factory: BackendFactory,
    settings: Settings,
    *,
    weights: Mapping[str, CheckpointFolder | UpstreamModel],
    on_ready: Callable[[str], None],
) -> None:
    """Serve as `serve` does, with the backends of folders from `backend_factory`.

    A backend begins to load when it is made, so that it loads while the rest is imported. Logs go where the
    settings say.
    """
    configure_logging(
        level=settings.log_level,
        format=settings.log_format,
        log_prompts=settings.log_prompts,
        secrets=settings.secrets(),
    )
    with listen(settings.host, settings.port) as listener, growing_heap() as heap_is_grown:
        router = Router(_make_backends(backend_factory, settings, weights))
        signals = _Signals()
        with signals.catching():
            _run(_serve(settings, router, listener, on_ready, signals, heap_is_grown))


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket: connections wait until it is served, and no other server gets the address.

    Raises: OSError.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """Return a URL that reaches the socket from this machine."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _make_backends(
    factory: BackendFactory, settings: Settings, weights: Mapping[str, CheckpointFolder | UpstreamModel]
) -> dict[str, Backend]:
    """Make one backend for each folder and each upstream, also when several models share it."""
    made: dict[str | UpstreamModel, Backend] = {}
    backends = {}
    for model_id, one in weights.items():
        key = one if isinstance(one, UpstreamModel) else str(one.path)
        if key not in made:
            made[key] = (
                _make_upstream(one, settings, weights)
                if isinstance(one, UpstreamModel)
                else factory(one, settings)
            )
        backends[model_id] = made[key]
    return backends


def _make_upstream(
    upstream: UpstreamModel, settings: Settings, weights: Mapping[str, CheckpointFolder | UpstreamModel]
) -> Backend:
    from mezzo.backends.upstream.backend import make_upstream_backend  # noqa: PLC0415  an HTTP client, where used
    from mezzo.catalog.cards import load_catalog  # noqa: PLC0415

    served = [card for card in load_catalog() if weights.get(card.id) == upstream]
    return make_upstream_backend(upstream, settings, max_context_length=max(card.context for card in served))


async def _serve(
    settings: Settings,
    router: Router,
    listener: socket.socket,
    on_ready: Callable[[str], None],
    signals: _Signals,
    heap_is_grown: Callable[[], None],
) -> None:
    loading = asyncio.create_task(router.start())
    async with contextlib.AsyncExitStack() as stack:
        # Undone from the last to the first: when the engines have stopped, their counts are final and the books close.
        server, services = await asyncio.to_thread(_make_server, settings, router)
        stack.push_async_callback(services.stop)
        stack.push_async_callback(_stop_backends, router, loading)
        await services.start()
        heap_is_grown()
        await _serve_until_stopped(server, loading, listener, on_ready, signals)


async def _serve_until_stopped(
    server: ApiServer,
    loading: asyncio.Task[None],
    listener: socket.socket,
    on_ready: Callable[[str], None],
    signals: _Signals,
) -> None:
    signals.forward_to(server)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.wait({loading, serving}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            if not server.should_exit:
                on_ready(url_of(listener))
    except BaseException:
        server.should_exit = True
        raise
    finally:
        await serving


async def _stop_backends(router: Router, loading: asyncio.Task[None]) -> None:
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)
    await router.stop()


class _Signals:
    """Catches SIGINT and SIGTERM from the first moment, and passes them on once there is a server."""

    def __init__(self) -> None:
        self._caught: list[int] = []
        self._server: ApiServer | None = None

    @contextlib.contextmanager
    def catching(self) -> Iterator[None]:
        """Catch signals inside the block; elsewhere than in the main thread they cannot be."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def forward_to(self, server: ApiServer) -> None:
        """Let `server` handle the signals that came and those that will."""
        self._server = server
        for number in self._caught:
            server.handle_exit(number, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._server is None:
            self._caught.append(number)
        else:
            self._server.handle_exit(number, frame)


def _run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on the fast event loop, where the platform has it."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    if sys.platform == "win32":
        asyncio.run(main)
    else:
        import uvloop  # noqa: PLC0415  not there on every platform

        uvloop.run(main)


def _make_server(settings: Settings, router: Router) -> tuple[ApiServer, Services]:
    # Slow imports, in a thread: the engines are starting meanwhile, and signals are heard.
    from mezzo.server.app import create_app  # noqa: PLC0415
    from mezzo.server.services import make_services  # noqa: PLC0415
    from mezzo.server.uvicorn_server import ApiServer  # noqa: PLC0415

    services = make_services(settings, router)
    return ApiServer(create_app(settings, services), settings), services
