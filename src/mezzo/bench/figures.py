"""What is made of the samples of one load."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from mezzo.bench.client import Failure, Sample

# Of one core. A client that takes more may be what is measured.
BUSY_CLIENT = 0.2


class Percentiles(msgspec.Struct, frozen=True):
    """Interpolated linearly between the two nearest values."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class Errors(msgspec.Struct, frozen=True):
    """Failed requests of one kind, and what the first of them was told."""

    count: int
    example: str


class LoadFigures(msgspec.Struct, frozen=True):
    """One load, as its clients saw it; failed requests are counted and otherwise left out.

    requests                  that came to an end, failed ones too
    unfinished                that were still running when the measurement was stopped
    streams, rate             how many were kept busy in a closed loop; requests a second that were due in an open one
    cached_tokens             of the prompt tokens, as far as the server tells
    completion_tokens_per_s   completion tokens of all requests / wall time, ramp-up and drain included
    decode_tokens_per_s       of one stream, from its first event to its last: median over the requests
    tokens_per_event          above 1 where a server sends several tokens at once, which lengthens its gaps
    ttft_ms, e2e_ms           in an open loop from when each request was due
    itl_ms                    gaps between a request's events with text
    client_cpu                processor time of the client itself / wall time
    """

    name: str
    streams: int | None
    rate: float | None
    requests: int
    unfinished: int
    errors: dict[str, Errors]
    finish_reasons: dict[str, int]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    wall_s: float
    completion_tokens_per_s: float
    prompt_tokens_per_s: float
    decode_tokens_per_s: float | None
    tokens_per_event: float | None
    ttft_ms: Percentiles | None
    itl_ms: Percentiles | None
    e2e_ms: Percentiles | None
    client_cpu: float

    @property
    def num_failed(self) -> int:
        return sum(errors.count for errors in self.errors.values())


class Figure(msgspec.Struct, frozen=True):
    """One number that a workload is about. better: which direction is."""

    name: str
    unit: str
    value: float
    better: Literal["higher", "lower"]


def figures_of(
    name: str,
    samples: Sequence[Sample],
    *,
    wall_s: float,
    client_cpu_s: float,
    streams: int | None = None,
    rate: float | None = None,
    unfinished: int = 0,
) -> LoadFigures:
    good = [sample for sample in samples if failure_of(sample) is None]
    completion_tokens = sum(sample.completion_tokens for sample in good)
    prompt_tokens = sum(sample.prompt_tokens for sample in good)
    num_events = sum(len(sample.event_times_s) for sample in good)
    decode_rates = [found for sample in good if (found := decode_rate(sample)) is not None]
    return LoadFigures(
        name=name,
        streams=streams,
        rate=rate,
        requests=len(samples),
        unfinished=unfinished,
        errors=_errors(samples),
        finish_reasons=dict(collections.Counter(str(sample.finish_reason) for sample in good)),
        prompt_tokens=prompt_tokens,
        cached_tokens=sum(sample.cached_tokens for sample in good),
        completion_tokens=completion_tokens,
        wall_s=wall_s,
        completion_tokens_per_s=completion_tokens / wall_s,
        prompt_tokens_per_s=prompt_tokens / wall_s,
        decode_tokens_per_s=statistics.median(decode_rates) if decode_rates else None,
        tokens_per_event=completion_tokens / num_events if num_events else None,
        ttft_ms=percentiles_ms(sample.ttft_s for sample in good),
        itl_ms=percentiles_ms(gap for sample in good for gap in sample.gaps_s),
        e2e_ms=percentiles_ms(sample.e2e_s for sample in good),
        client_cpu=client_cpu_s / wall_s,
    )


def failure_of(sample: Sample) -> Failure | None:
    """Return why a sample does not count. Without the server's count of tokens there is nothing to reckon with."""
    if sample.failure is None and not sample.has_usage:
        return Failure("no usage", "the stream did not say how many tokens it had; see --dialect")
    return sample.failure


def decode_rate(sample: Sample) -> float | None:
    """Return tokens per second after the first event, whose tokens are taken to be as many as every event's."""
    num_events = len(sample.event_times_s)
    if num_events < 2:
        return None
    share = (num_events - 1) / num_events
    elapsed_s = sample.event_times_s[-1] - sample.event_times_s[0]
    return sample.completion_tokens * share / elapsed_s if elapsed_s else None


def percentiles_ms(seconds: Iterable[float]) -> Percentiles | None:
    """Take percentiles of times in seconds, in milliseconds; None of none."""
    ordered = sorted(seconds)
    if not ordered:
        return None

    def at(share: float) -> float:
        position = share * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return 1000 * (ordered[low] + (ordered[high] - ordered[low]) * (position - low))

    return Percentiles(at(0.50), at(0.90), at(0.95), at(0.99), at(1.0))


def _errors(samples: Sequence[Sample]) -> dict[str, Errors]:
    found: dict[str, Errors] = {}
    for failure in map(failure_of, samples):
        if failure is not None:
            earlier = found.get(failure.kind, Errors(0, failure.detail))
            found[failure.kind] = Errors(earlier.count + 1, earlier.example)
    return found
