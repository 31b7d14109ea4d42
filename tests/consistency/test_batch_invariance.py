"""The same request alone and in a full batch: the same bits, on the CPU.

How far it goes: for every request, the logits of every step are compared bit by bit between a run alone and runs in
batches that differ in company, in order and in who joins and leaves when, and with drafts of what comes next; in
bfloat16 and float32, with one thread and with two. It holds as long as nobody is preempted (tokens computed again in a
chunk round differently; text was the same in float32 in all our runs, which tests/engine/test_core.py checks) and the
number of threads stays.

Each combination is a process of its own: the number of threads is a fact about a process.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs

from mezzo.engine.launch import WORKER_ENVIRONMENT

# Wide enough that the matrix library takes the paths that it takes for real models.
WIDE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests import tiny

    return tiny.write_checkpoint(tmp_path_factory.mktemp("wide"), **WIDE)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_are_the_same_bits_alone_and_in_any_batch(folder: Path, dtype: str, threads: int) -> None:
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "tests.consistency.test_batch_invariance", str(folder), dtype, str(threads)],
        cwd=root,
        env=os.environ
        | WORKER_ENVIRONMENT
        | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "identical" in result.stdout


def make_requests(rng: random.Random) -> list[Any]:
    from tests import tiny

    lengths = [1, 2, 40, 63, 64, 65, 130, 300, 33, 7, 500, 12]
    return [
        tiny.make_request(
            f"r{i}",
            [rng.randrange(256) for _ in range(length)],
            temperature=(0.0, 1.0)[i % 2],
            seed=i,
            max_tokens=rng.randrange(3, 24),
        )
        for i, length in enumerate(lengths)
    ]


@dataclass
class Trace:
    """Of one request: the logits that each of its tokens was sampled from, and the tokens."""

    logits: torch.Tensor
    token_ids: list[int]


def trace(decoder: Any, requests: list[Any], arrivals: list[int], num_drafts: int = 0) -> dict[str, Trace]:
    """Run requests, each joining before the step of its number in `arrivals`; return the trace of each."""
    from tests import tiny

    core = tiny.make_core(
        decoder, num_blocks=200, max_num_seqs=len(requests), max_step_tokens=64, max_draft_tokens=num_drafts
    )
    sequences: dict[str, Any] = {}
    logits_of: dict[str, dict[int, torch.Tensor]] = {request.request_id: {} for request in requests}
    forward = core.runner.forward

    def recording(scheduled: Any) -> Any:
        result = forward(scheduled)
        rows = iter(result.logits)
        for item in result.complete:
            sequence = sequences[item.sequence.request_id] = item.sequence
            for place in range(1 + len(item.draft)):  # what is rejected is computed again, and replaced here
                logits_of[sequence.request_id][sequence.num_tokens + place] = next(rows).clone()
        return result

    core.runner.forward = recording  # type: ignore[method-assign]
    pending = sorted(zip(arrivals, requests, strict=True), key=lambda pair: pair[0])
    step = 0
    while pending or core.has_work:
        while pending and pending[0][0] <= step:
            core.add(pending.pop(0)[1])
        core.step()
        step += 1
    assert core.stats.num_preemptions == 0
    assert (core.stats.num_accepted_tokens > 0) == (num_drafts > 0)
    traces = {}
    for request_id, sequence in sequences.items():
        positions = range(sequence.num_prompt, sequence.num_tokens)
        logits = torch.stack([logits_of[request_id][position] for position in positions])
        traces[request_id] = Trace(logits, sequence.tokens_between(positions.start, positions.stop))
    return traces


def expecting(request: Any, token_ids: list[int], rng: random.Random) -> Any:
    """Return the request with its answer as a prediction, some tokens of it wrong, missing or too many."""
    expected = list(token_ids)
    for _ in range(len(expected) // 6):
        place = rng.randrange(len(expected))
        expected[place : place + rng.randrange(2)] = [rng.randrange(256)] * rng.randrange(2)
    return structs.replace(request, prediction_token_ids=expected)


def main() -> None:
    from tests import tiny

    folder, dtype, threads = Path(sys.argv[1]), getattr(torch, sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    decoder = tiny.load(folder, dtype)
    rng = random.Random(7)
    requests = make_requests(rng)
    alone = {r.request_id: trace(decoder, [r], [0])[r.request_id] for r in requests}
    batches = [(arrivals, rng.sample(requests, len(requests)), 0) for arrivals in (
        [0] * len(requests),
        [rng.randrange(30) for _ in requests],
        [rng.randrange(90) for _ in requests],
    )]  # fmt: skip
    expected = [expecting(r, alone[r.request_id].token_ids, rng) for r in requests]
    batches += [
        ([0] * len(requests), expected, 12 * 8),
        ([8 * i for i in range(len(requests))], expected, 32),
    ]
    for arrivals, order, num_drafts in batches:
        for request_id, found in trace(decoder, order, arrivals, num_drafts).items():
            logits = alone[request_id].logits
            same = torch.equal(found.logits, logits)
            assert same, f"{request_id}: {(found.logits - logits).abs().max()} apart with {num_drafts} drafts"
            assert found.token_ids == alone[request_id].token_ids
    sys.stdout.write("identical")


if __name__ == "__main__":
    main()
