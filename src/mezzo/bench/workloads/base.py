"""What a workload is, and what it is given."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mezzo.bench.client import ChatRequest, Message, Target, user_request
from mezzo.bench.figures import Figure
from mezzo.bench.load import Loads
from mezzo.bench.prompts import story_prompt


@dataclass(frozen=True)
class Session:
    """A server, and prompts that nobody else has sent to it.

    seed, first   prompts are drawn from the seed by their number; this session's begin with `first`
    own           somebody's own messages, which take the place of stories in turn, from the first one again at the end
    loads         gets every load that is begun
    """

    target: Target
    seed: int
    first: int = 0
    own: Sequence[tuple[Message, ...]] = ()
    loads: Loads = field(default_factory=Loads)

    def stories(self, max_tokens: int, *, skip: int = 0) -> Iterator[ChatRequest]:
        """Yield requests for a long text, each a new one, without end."""
        if self.own:
            for messages in itertools.islice(itertools.cycle(self.own), skip, None):
                yield ChatRequest(messages, max_tokens)
        for number in itertools.count(self.first + skip):
            yield user_request(story_prompt(self.seed, number), max_tokens)


@dataclass(frozen=True)
class Outcome:
    """What a workload is about, in a few numbers. notes: what one must know to read them."""

    figures: list[Figure]
    notes: list[str] = field(default_factory=list)


class Workload(Protocol):
    """A fixed piece of work: the same for every server, documented in docs/bench.md."""

    async def measure(self, session: Session) -> Outcome:
        """Do the work once. Failed requests are in the session's loads; a figure that cannot be told is left out."""
        ...

    def short(self) -> Workload:
        """Return a small piece of it, for a server to allocate and compile what it does once."""
        ...


def streams_text(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"
