"""`mezzo serve`: weights, a free port and a key; then the server, and what a client needs to reach it."""

from __future__ import annotations

import errno
import json
import shlex
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from mezzo.cli.models import check_served
from mezzo.cli.options import read_api_key, read_settings
from mezzo.cli.output import CommandFailed, put, say
from mezzo.cli.pull import fetch

if TYPE_CHECKING:
    from mezzo.catalog.cards import Catalog
    from mezzo.engine.launch import EngineProcess
    from mezzo.settings import Settings
    from mezzo.weights import CheckpointFolder, UpstreamModel

_INTERRUPTED = 130
_LISTEN_ERRORS = frozenset({errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL})


def serve(
    context: typer.Context,
    *,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS")] = None,
    port: Annotated[int | None, typer.Option(metavar="N")] = None,
    weights: Annotated[str | None, typer.Option(metavar="WEIGHTS")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="FORMAT")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(metavar="N")] = None,
    max_step_tokens: Annotated[int | None, typer.Option(metavar="N")] = None,
    kv_cache_tokens: Annotated[int | None, typer.Option(metavar="N")] = None,
    max_queue: Annotated[int | None, typer.Option(metavar="N")] = None,
    strict_lifecycle: Annotated[bool | None, typer.Option("--strict-lifecycle")] = None,
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    log_level: Annotated[str | None, typer.Option(metavar="LEVEL")] = None,
    log_format: Annotated[str | None, typer.Option(metavar="FORMAT")] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings file; ./mezzo.toml is read if there.")
    ] = None,
) -> None:
    """Serve a model behind the chat completions API; fetch its weights first if they are not here yet.

    Once ready it prints the URL, the API key and a curl line that works when pasted. Ctrl-C stops it: running
    answers are finished first.

        mezzo serve

        mezzo serve --weights hf:mistralai/Ministral-3-3B-Instruct-2512 --port 9000

    Each option is a setting and can also stand in mezzo.toml (`port = 9000`) or the environment
    (`MEZZO_PORT=9000`). The API key is `MEZZO_API_KEY` if that is set. docs/settings.md lists all settings.
    """
    # Every parameter but these two is a setting of the same name.
    options = {name: value for name, value in locals().items() if name not in ("context", "config")}
    from mezzo.catalog.cards import load_catalog
    from mezzo.engine.launch import launch_engine

    launch: Callable[[], EngineProcess] = context.obj or launch_engine
    settings = read_settings(options, config=config)
    catalog = load_catalog()
    check_served(settings, catalog)
    check_port(settings.host, settings.port)
    key = read_api_key(settings)
    if not is_loopback(settings.host):
        say(
            f"Note: listening on {settings.host}, so other machines can reach this server. It asks for the "
            "API key, but speaks plain HTTP: put a TLS proxy before it."
        )
    weights_by_id = {
        model_id: located(spec, model_id, settings.home)
        for model_id, spec in settings.served_models().items()
    }
    _run(settings, catalog, weights_by_id, key, launch)


def located(spec: str, model_id: str, home: Path) -> CheckpointFolder | UpstreamModel:
    """Return where a model's answers come from: weights, fetched if need be, or a server. Raises: CommandFailed."""
    from mezzo.weights import WeightsError, is_upstream, parse_upstream

    if not is_upstream(spec):
        return fetch(spec, home)
    try:
        return parse_upstream(spec, model_id=model_id)
    except WeightsError as error:
        raise CommandFailed(f"models: {error}", hint=error.hint, exit_code=2) from error


def _run(
    settings: Settings,
    catalog: Catalog,
    weights_by_id: Mapping[str, CheckpointFolder | UpstreamModel],
    key: str,
    launch: Callable[[], EngineProcess],
) -> None:
    from mezzo.kit.logging import configure_logging
    from mezzo.server.run import serve as run_server

    configure_logging(
        level=settings.log_level,
        format=settings.log_format,
        log_prompts=settings.log_prompts,
        secrets=settings.secrets(),
    )

    was_ready = False

    def on_ready(url: str) -> None:
        nonlocal was_ready
        was_ready = True
        put(banner(local_url(url), key, answering(settings, catalog, weights_by_id)))

    behind = ", ".join(sorted({weights.description for weights in weights_by_id.values()}))
    say(f"Starting with {behind} …")
    try:
        run_server(settings, weights=weights_by_id, on_ready=on_ready, launch=launch)
    except Exception as error:
        if (failure := _explained(error, settings)) is None:
            raise
        raise failure from error
    if not was_ready:
        raise typer.Exit(_INTERRUPTED)
    say("Stopped.")


def _explained(error: Exception, settings: Settings) -> CommandFailed | None:
    """Say what an operator can do about; None for what is a defect."""
    # Not before they are needed: with the database comes a third of a second of imports, and the engine waits to hear
    # what it serves.
    from mezzo.backends.base import BackendUnavailable
    from mezzo.metering.prices import PriceChanged, PriceNotFound
    from mezzo.store.database import DatabaseUnavailable

    if isinstance(error, BackendUnavailable):
        return CommandFailed(f"the engine did not start: {error}")
    if isinstance(error, DatabaseUnavailable):
        return CommandFailed(f"the database cannot be used: {error}")
    if isinstance(error, PriceNotFound | PriceChanged):
        return CommandFailed(f"nothing can be billed: {error}")
    if isinstance(error, OSError) and error.errno in _LISTEN_ERRORS:
        return _cannot_listen(settings.host, settings.port, error)  # somebody took it since it was checked
    return None


def answering(
    settings: Settings, catalog: Catalog, weights_by_id: Mapping[str, CheckpointFolder | UpstreamModel]
) -> dict[str, list[str]]:
    """Return, for the weights behind each served model, the names that they answer to, current ones first."""
    from datetime import UTC, datetime

    from mezzo.catalog.resolve import ModelRetired, UnknownModel

    now = datetime.now(UTC)
    names: dict[str, list[str]] = {}
    for card in sorted(catalog, key=lambda card: card.lifecycle(now) != "active"):
        try:
            served_by = catalog.resolve(
                card.id, served=weights_by_id, strict=settings.strict_lifecycle, now=now
            ).served_by
        except (UnknownModel, ModelRetired):
            continue
        weights = weights_by_id[served_by.id]
        label = f"{weights.name}: {weights.description}"
        names.setdefault(label, []).extend(reversed(card.names))
    return names


def banner(url: str, key: str, names_by_weights: Mapping[str, list[str]]) -> str:
    """Return what is printed once the server is ready; the curl command is one line, to be pasted."""
    first_name = next(iter(names_by_weights.values()))[0]
    # With a bound: a small model may talk until its context is full, and nobody's first request should wait for that.
    question = [{"role": "user", "content": "What is the capital of France?"}]
    body = {"model": first_name, "max_tokens": 100, "messages": question}
    curl = [
        "curl",
        f"{url}/v1/chat/completions",
        "-H",
        f"Authorization: Bearer {key}",
        "-H",
        "Content-Type: application/json",
        "-d",
        json.dumps(body),
    ]
    models = [f"  Models   {', '.join(names)}\n           by {by}" for by, names in names_by_weights.items()]
    return "\n".join(
        [
            "",
            f"  URL      {url}",
            f"  API key  {key}",
            *models,
            "",
            "Try it:",
            "",
            shlex.join(curl),
            "",
            "or talk to it with `mezzo chat`. Ctrl-C stops the server.",
        ]
    )


def local_url(url: str) -> str:
    """Return the URL under which this machine reaches a server that listens on `url`'s address."""
    host = urlsplit(url).hostname
    return url.replace("//0.0.0.0", "//127.0.0.1").replace("//[::]", "//[::1]") if host else url


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a listener on `host`."""
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_port(host: str, port: int) -> None:
    """Check that the address can be listened on, before the slow work. Raises: CommandFailed."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise CommandFailed(f"{host} is not an address: {error.strerror or error}", exit_code=2) from error
    with socket.socket(family, kind, protocol) as probe:
        # As servers do it: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> CommandFailed:
    match error.errno:
        case errno.EADDRINUSE:
            other = port + 1 if port < 65535 else port - 1
            return CommandFailed(
                f"port {port} on {host} is in use by another program",
                hint=f"Stop that program, or choose another port: mezzo serve --port {other}",
            )
        case errno.EACCES:
            return CommandFailed(f"port {port} needs more rights", hint="Choose a port above 1023.")
        case errno.EADDRNOTAVAIL:
            return CommandFailed(
                f"{host} is not an address of this machine", hint="Use 127.0.0.1 or 0.0.0.0.", exit_code=2
            )
    return CommandFailed(f"cannot listen on {host} port {port}: {error.strerror}")
