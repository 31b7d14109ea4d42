"""From options to workloads: what is chosen is done, and an option that nothing would use is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mezzo.bench.client import Message
from mezzo.bench.workloads import WORKLOADS, AnyWorkload
from mezzo.bench.workloads.arrivals import Arrivals
from mezzo.bench.workloads.chats import Chats
from mezzo.bench.workloads.interruption import Interruption
from mezzo.bench.workloads.streams import Streams

DEFAULT_WORKLOADS = ("streams", "prefill")
_BY_NAME = {workload.name: workload for workload in WORKLOADS}
_WITH_MAX_TOKENS = (Streams, Chats, Interruption, Arrivals)
_OF_STORIES = (Streams, Arrivals)


class PlanError(ValueError):
    """Options that do not go together, or a file that is not what it should be; the message names the option."""


@dataclass(frozen=True)
class Choice:
    """What was asked for; None where the workloads' own numbers hold."""

    names: Sequence[str] = ()
    streams: str | None = None
    requests_per_stream: int | None = None
    max_tokens: int | None = None
    rate: float | None = None
    duration_s: float | None = None
    has_own_prompts: bool = False


def choose_workloads(choice: Choice) -> tuple[AnyWorkload, ...]:
    """Raises: PlanError."""
    chosen: list[AnyWorkload] = [_BY_NAME[name]() for name in _names(choice)]
    if choice.rate is not None:
        chosen.append(Arrivals(choice.rate, **_given(duration_s=choice.duration_s)))
    elif choice.duration_s is not None:
        raise PlanError("--duration: only requests at a --rate come for a time")
    if choice.streams is not None:
        _refuse_unused("--streams", chosen, (Streams,))
    if choice.requests_per_stream is not None:
        _refuse_unused("--requests-per-stream", chosen, (Streams,))
    if choice.max_tokens is not None:
        _refuse_unused("--max-tokens", chosen, _WITH_MAX_TOKENS)
    if choice.has_own_prompts and (others := [w.name for w in chosen if not isinstance(w, _OF_STORIES)]):
        raise PlanError(f"--prompts: {others[0]} has prompts of its own; streams and --rate take yours")
    return tuple(_adjusted(workload, choice) for workload in chosen)


def _names(choice: Choice) -> list[str]:
    if choice.names:
        names = list(_BY_NAME) if "all" in choice.names else list(dict.fromkeys(choice.names))
        for name in names:
            if name not in _BY_NAME:
                raise PlanError(f"--workload {name}: there are {', '.join(_BY_NAME)} and all")
        return names
    if choice.rate is not None:
        return []
    return ["streams"] if choice.has_own_prompts else list(DEFAULT_WORKLOADS)


def _adjusted(workload: AnyWorkload, choice: Choice) -> AnyWorkload:
    if isinstance(workload, _WITH_MAX_TOKENS):
        workload = msgspec.structs.replace(workload, **_given(max_tokens=choice.max_tokens))
    if isinstance(workload, Streams):
        streams = None if choice.streams is None else parse_streams(choice.streams)
        given = _given(streams=streams, requests_per_stream=choice.requests_per_stream)
        workload = msgspec.structs.replace(workload, **given)
    return workload


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _refuse_unused(option: str, chosen: Sequence[AnyWorkload], users: tuple[type, ...]) -> None:
    if not any(isinstance(workload, users) for workload in chosen):
        raise PlanError(f"{option}: none of the workloads has that: {', '.join(w.name for w in chosen)}")


def parse_streams(text: str) -> tuple[int, ...]:
    """Read `1,8,32`. Raises: PlanError."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise PlanError(f"--streams {text}: expected numbers from 1 on, such as 1,8,32")
    return numbers


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    messages: list[Message]


def read_own_prompts(path: Path) -> list[tuple[Message, ...]]:
    """Read a file with one `{"messages": [...]}` in each line. Raises: PlanError naming the line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise PlanError(f"--prompts {path}: {error.strerror or error}") from error
    decoder = msgspec.json.Decoder(_Line)
    prompts = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            messages = decoder.decode(line).messages
        except msgspec.DecodeError as error:
            raise PlanError(f"--prompts {path}: line {number}: {error}") from error
        if not messages:
            raise PlanError(f"--prompts {path}: line {number}: no messages")
        prompts.append(tuple(messages))
    if not prompts:
        raise PlanError(f"--prompts {path}: the file is empty")
    return prompts
