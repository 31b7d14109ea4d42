"""Put one server under load and print what its clients saw.

    python -m benchmarks.serve http://127.0.0.1:8000 --key "$MEZZO_API_KEY" --model mistral-medium-latest

Prints one JSON object: throughput, TTFT, ITL and end-to-end times with N streams kept busy (a closed loop),
and prefill alone. Any server with OpenAI's or Mistral's `/v1/chat/completions` will do. To compare servers,
use `benchmarks.compare`, which alternates between them.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import statistics
import sys
import time
from collections.abc import Iterator, Sequence

import msgspec
import uvloop

from benchmarks.client import Sample, Target, stream_chat
from benchmarks.prompts import reading_prompt, story_prompt

# Prompt numbers are unique in a run: each round has a range of its own, and in it each load.
_NUMBERS_PER_ROUND = 100_000
_NUMBERS_PER_LOAD = 1_000


class LoadShape(msgspec.Struct, frozen=True):
    """What is asked of a server in one round.

    concurrency           the numbers of streams kept busy, one load after another
    requests_per_stream   a load sends `concurrency` times this many requests, but at least `min_requests`
    prefill_sentences     length of the prompts that ask for one token only; a sentence is about 14 tokens
    """

    concurrency: tuple[int, ...] = (1, 8, 32)
    requests_per_stream: int = 2
    min_requests: int = 4
    max_tokens: int = 128
    prefill_sentences: int = 106
    prefill_requests: int = 3
    seed: int = 2505

    def num_requests(self, concurrency: int) -> int:
        return max(self.min_requests, concurrency * self.requests_per_stream)


class Percentiles(msgspec.Struct, frozen=True):
    """Interpolated linearly between the two nearest values."""

    p50: float
    p95: float
    p99: float


class LoadFigures(msgspec.Struct, frozen=True):
    """One load, as its clients saw it; requests with an error are counted and otherwise left out.

    completion_tokens_per_s   completion tokens of all requests / wall time, ramp-up and drain included
    itl_ms                    gaps between a request's events with text
    tokens_per_event          above 1 where a server sends several tokens at once, which lengthens its gaps
    client_cpu_s              processor time of the load generator itself
    """

    concurrency: int
    requests: int
    errors: dict[str, int]
    finish_reasons: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    wall_s: float
    client_cpu_s: float
    completion_tokens_per_s: float
    tokens_per_event: float
    ttft_ms: Percentiles | None
    itl_ms: Percentiles | None
    e2e_ms: Percentiles | None


class PrefillFigures(msgspec.Struct, frozen=True):
    """Prompts read one at a time: tokens_per_s is the median of prompt tokens / TTFT."""

    requests: int
    errors: dict[str, int]
    prompt_tokens: int
    tokens_per_s: float
    ttft_ms: Percentiles | None


class RoundFigures(msgspec.Struct, frozen=True):
    loads: list[LoadFigures]
    prefill: PrefillFigures


async def measure_round(target: Target, shape: LoadShape, round_number: int) -> RoundFigures:
    """Run every load of the shape once.

    The same round number gives every server the same prompts. Rounds count from 1; number 0 is the warm-up's.
    """
    first = round_number * _NUMBERS_PER_ROUND
    prefill = await _measure_prefill(target, shape, first)
    loads = []
    for index, concurrency in enumerate(shape.concurrency, start=1):
        start = first + index * _NUMBERS_PER_LOAD
        prompts = [story_prompt(shape.seed, start + i) for i in range(shape.num_requests(concurrency))]
        loads.append(await _measure_load(target, prompts, concurrency, shape.max_tokens))
    return RoundFigures(loads, prefill)


async def warm_up(target: Target, shape: LoadShape) -> None:
    """Let a server allocate and compile what it does once: each load, with 16 tokens instead of all of them.

    Raises: RuntimeError if a request fails, since then there is nothing to measure.
    """
    short = msgspec.structs.replace(shape, max_tokens=16, requests_per_stream=1, prefill_requests=1)
    figures = await measure_round(target, short, round_number=0)
    errors = [figures.prefill.errors, *(load.errors for load in figures.loads)]
    if any(errors):
        raise RuntimeError(f"{target.name}: warm-up failed: {[error for error in errors if error]}")


async def _measure_load(
    target: Target, prompts: Sequence[str], concurrency: int, max_tokens: int
) -> LoadFigures:
    waiting = iter(prompts)
    samples: list[Sample] = []

    async def keep_one_stream_busy() -> None:
        for prompt in waiting:
            samples.append(await stream_chat(target, prompt, max_tokens))

    started_at, cpu_before = time.perf_counter(), time.process_time()
    await asyncio.gather(*(keep_one_stream_busy() for _ in range(concurrency)))
    wall_s, client_cpu_s = time.perf_counter() - started_at, time.process_time() - cpu_before

    good, errors = _split(samples)
    completion_tokens = sum(sample.completion_tokens for sample in good)
    num_events = sum(len(sample.event_times_s) for sample in good)
    return LoadFigures(
        concurrency=concurrency,
        requests=len(samples),
        errors=errors,
        finish_reasons=dict(collections.Counter(str(sample.finish_reason) for sample in good)),
        prompt_tokens=sum(sample.prompt_tokens for sample in good),
        completion_tokens=completion_tokens,
        wall_s=wall_s,
        client_cpu_s=client_cpu_s,
        completion_tokens_per_s=completion_tokens / wall_s,
        tokens_per_event=completion_tokens / num_events if num_events else 0.0,
        ttft_ms=percentiles_ms(sample.ttft_s for sample in good),
        itl_ms=percentiles_ms(gap for sample in good for gap in sample.gaps_s),
        e2e_ms=percentiles_ms(sample.e2e_s for sample in good),
    )


async def _measure_prefill(target: Target, shape: LoadShape, first_number: int) -> PrefillFigures:
    samples = []
    for i in range(shape.prefill_requests):
        prompt = reading_prompt(shape.seed, first_number + i, shape.prefill_sentences)
        samples.append(await stream_chat(target, prompt, max_tokens=1))
    good, errors = _split(samples)
    rates = [sample.prompt_tokens / sample.ttft_s for sample in good]
    return PrefillFigures(
        requests=len(samples),
        errors=errors,
        prompt_tokens=sum(sample.prompt_tokens for sample in good),
        tokens_per_s=statistics.median(rates) if rates else 0.0,
        ttft_ms=percentiles_ms(sample.ttft_s for sample in good),
    )


def _split(samples: Sequence[Sample]) -> tuple[list[Sample], dict[str, int]]:
    good = [sample for sample in samples if sample.error is None]
    return good, dict(collections.Counter(sample.error for sample in samples if sample.error is not None))


def percentiles_ms(seconds: Iterator[float]) -> Percentiles | None:
    """Take percentiles of times in seconds, in milliseconds; None of none."""
    ordered = sorted(seconds)
    if not ordered:
        return None

    def at(share: float) -> float:
        position = share * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return 1000 * (ordered[low] + (ordered[high] - ordered[low]) * (position - low))

    return Percentiles(at(0.50), at(0.95), at(0.99))


def add_shape_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the load's shape; their defaults are LoadShape's."""
    default = LoadShape()
    parser.add_argument(
        "--concurrency", type=int, nargs="+", default=default.concurrency, help="numbers of busy streams"
    )
    for name, text in {
        "requests-per-stream": "requests of a load / its streams",
        "max-tokens": "completion tokens asked for",
        "prefill-requests": "long prompts in a round",
        "prefill-sentences": "length of a long prompt; one is about 14 tokens",
        "seed": "fixes the prompts",
    }.items():
        parser.add_argument(
            f"--{name}", type=int, default=getattr(default, name.replace("-", "_")), help=text
        )


def shape_of(args: argparse.Namespace) -> LoadShape:
    return LoadShape(
        concurrency=tuple(args.concurrency),
        requests_per_stream=args.requests_per_stream,
        max_tokens=args.max_tokens,
        prefill_requests=args.prefill_requests,
        prefill_sentences=args.prefill_sentences,
        seed=args.seed,
    )


async def find_dialect(target: Target) -> tuple[Target, Sample]:
    """Learn whether the server counts tokens only when asked, as OpenAI's servers do and Mistral's do not.

    Returns the target to use and its answer to a short question.
    Raises: RuntimeError if the server fails or never counts.
    """
    for candidate in (target, msgspec.structs.replace(target, include_usage=True)):
        sample = await stream_chat(candidate, "Tell me about the sea in three sentences.", max_tokens=32)
        if sample.error is not None:
            raise RuntimeError(f"{target.name}: {sample.error}")
        if sample.completion_tokens:
            return candidate, sample
    raise RuntimeError(f"{target.name} reports no token usage in its streams")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="base URL, without /v1")
    parser.add_argument("--key", help="bearer token")
    parser.add_argument("--model", required=True, help="the model to name in requests")
    add_shape_arguments(parser)
    args = parser.parse_args()

    async def run() -> RoundFigures:
        target, _ = await find_dialect(Target(args.url, args.url, args.model, args.key))
        await warm_up(target, shape_of(args))
        return await measure_round(target, shape_of(args), round_number=1)

    try:
        figures = uvloop.run(run())
    except RuntimeError as error:
        sys.exit(str(error))
    print(msgspec.json.format(msgspec.json.encode(figures)).decode())


if __name__ == "__main__":
    main()
