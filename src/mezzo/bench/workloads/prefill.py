"""`prefill`: how fast a long prompt is read."""

from __future__ import annotations

import statistics
from typing import ClassVar

import msgspec

from mezzo.bench.client import user_request
from mezzo.bench.figures import Figure, failure_of
from mezzo.bench.load import closed_loop
from mezzo.bench.prompts import PREFILL_SENTENCES, reading_prompt
from mezzo.bench.workloads.base import Outcome, Session


class Prefill(msgspec.Struct, frozen=True, tag="prefill", tag_field="name"):
    """Prompts of about 1,500 tokens that ask for one token, one after another."""

    name: ClassVar[str] = "prefill"
    requests: int = 3
    sentences: int = PREFILL_SENTENCES

    async def measure(self, session: Session) -> Outcome:
        requests = [
            user_request(reading_prompt(session.seed, session.first + i, self.sentences), max_tokens=1)
            for i in range(self.requests)
        ]
        load = session.loads.begin("prefill", len(requests), streams=1)
        await closed_loop(load, session.target, requests, streams=1)
        rates = [
            sample.prompt_tokens / sample.ttft_s for sample in load.samples if failure_of(sample) is None
        ]
        if not rates:
            return Outcome([])
        return Outcome([Figure("prefill", "tokens/s", statistics.median(rates), "higher")])

    def short(self) -> Prefill:
        return msgspec.structs.replace(self, requests=1)
