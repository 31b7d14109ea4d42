"""What has to be known of a server before it is measured: which dialect it speaks, and which models it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import msgspec

from mezzo.bench.client import Dialect, Sample, Target, stream_chat, user_request
from mezzo.bench.workloads.base import Session, Workload

QUESTION = "Tell me about the sea in three sentences."
DIALECTS: tuple[Dialect, ...] = ("mistral", "openai")


class NotMeasurable(Exception):
    """A server that cannot be measured; `str(error)` says why."""


@dataclass(frozen=True)
class Found:
    """A server in its dialect, and what it answered to a question."""

    target: Target
    sample: Sample


async def find_dialect(target: Target, dialects: Sequence[Dialect] = DIALECTS) -> Found:
    """Take the first dialect in which the server tells how many tokens it generated.

    Raises: NotMeasurable if it fails or never tells.
    """
    for dialect in dialects:
        candidate = msgspec.structs.replace(target, dialect=dialect)
        sample = await stream_chat(candidate, user_request(QUESTION, max_tokens=32))
        if sample.failure is not None:
            raise NotMeasurable(f"{target.name} does not answer: {sample.failure}")
        if sample.completion_tokens:
            return Found(candidate, sample)
    tried = " or ".join(dialects)
    raise NotMeasurable(f"{target.name} reports no token usage in its streams (dialect {tried})")


async def warm_up(target: Target, workload: Workload, *, seed: int, first: int) -> None:
    """Let a server allocate and compile what it does once. Raises: NotMeasurable if a request fails."""
    session = Session(target, seed, first)
    await workload.short().measure(session)
    for load in session.loads.all:
        for kind, errors in load.figures().errors.items():
            raise NotMeasurable(
                f"{target.name} failed {load.name} while warming up: {kind}: {errors.example}"
            )


class _Card(msgspec.Struct):
    id: str


class _Cards(msgspec.Struct):
    data: list[_Card]


def find_model(url: str, key: str | None, preferred: str) -> str:
    """Return the preferred model if the server has it, or the only one that it has. Raises: NotMeasurable."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.get(f"{url}/v1/models", headers=headers, timeout=30, trust_env=False)
        names = [card.id for card in msgspec.json.decode(response.content, type=_Cards).data]
    except httpx.HTTPError as error:
        raise NotMeasurable(f"nothing answers at {url} ({type(error).__name__})") from error
    except msgspec.DecodeError as error:
        raise NotMeasurable(
            f"{url} does not list its models (HTTP {response.status_code}); name one with --model"
        ) from error
    if preferred in names:
        return preferred
    if len(set(names)) == 1:
        return names[0]
    listed = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    raise NotMeasurable(f"{url} has {len(names)} models; name one with --model: {listed}")
