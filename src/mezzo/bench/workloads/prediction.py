"""`prediction`: what it is worth to send the text along that the answer will nearly be."""

from __future__ import annotations

import statistics
from typing import ClassVar

import msgspec

from mezzo.bench.client import user_request
from mezzo.bench.figures import Figure, failure_of
from mezzo.bench.load import Load
from mezzo.bench.prompts import copy_prompt, with_changed_words
from mezzo.bench.workloads.base import Outcome, Session

# Statuses of a server that does not know a field.
_REFUSALS = ("HTTP 400", "HTTP 422")


class Prediction(msgspec.Struct, frozen=True, tag="prediction", tag_field="name"):
    """A letter of about 370 tokens is to be repeated: asked plainly, then with a prediction wrong in some words.

    The prediction is the server's own plain answer with `changes` words replaced, so that the figure does not depend on
    how well a model copies. Both are asked one at a time.
    """

    name: ClassVar[str] = "prediction"
    requests: int = 2
    changes: int = 4
    max_tokens: int = 400

    async def measure(self, session: Session) -> Outcome:
        requests = [
            user_request(copy_prompt(session.seed, session.first + i), self.max_tokens)
            for i in range(self.requests)
        ]
        plain = session.loads.begin("prediction, without", len(requests), streams=1)
        answers = [await plain.send(session.target, request) for request in requests]
        plain.end()
        ready = [
            msgspec.structs.replace(
                request, prediction=with_changed_words(answer.text, self.changes, session.seed)
            )
            for request, answer in zip(requests, answers, strict=True)
            if failure_of(answer) is None and answer.text.count(" ") >= self.changes
        ]
        without = _rate("without", plain)
        if not ready:
            return Outcome(without, ["no answer was long enough to predict it with changes"])
        predicted = session.loads.begin("prediction, with", len(ready), streams=1)
        for request in ready:
            sample = await predicted.send(session.target, request)
            is_first = len(predicted.samples) == 1
            if is_first and sample.failure is not None and sample.failure.kind in _REFUSALS:
                # It is no failed request to lack a feature, as long as it is said.
                session.loads.all.remove(predicted)
                note = f"takes no prediction, so the figure with it is the one without ({sample.failure})"
                return Outcome([*without, *_rate("with", plain)], [note])
        predicted.end()
        return Outcome([*without, *_rate("with", predicted)])

    def short(self) -> Prediction:
        return msgspec.structs.replace(self, requests=1, max_tokens=min(32, self.max_tokens))


def _rate(words: str, load: Load) -> list[Figure]:
    """Return completion tokens by the time of the whole request: events of many tokens leave nothing better."""
    rates = [sample.completion_tokens / sample.e2e_s for sample in load.samples if failure_of(sample) is None]
    if not rates:
        return []
    return [Figure(f"repetition, {words} prediction", "tokens/s", statistics.median(rates), "higher")]
