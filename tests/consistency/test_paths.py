"""Fast paths against slow ones, in float32: whatever way a token is computed, its logits are the same.

How far: logits agree to 2e-4, with a standard deviation above 1, after sums of up to 64 products in another order.
The slow path computes the whole text at once, with a cache of one block that nobody shares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mezzo.engine.messages import AddRequest
from mezzo.engine.runner import StepResult
from mezzo.engine.scheduler import ScheduledSequence
from mezzo.engine.sequence import Sequence
from mezzo.model.attention import SequenceSpan, plan_attention
from mezzo.model.decoder import Decoder
from mezzo.model.kv_cache import KVCache
from tests.tiny import CPU, load, make_core, make_request, run

TOLERANCE = {"rtol": 0.0, "atol": 2e-4}


@pytest.fixture(scope="module")
def decoder(shape_folder: Path) -> Decoder:
    return load(shape_folder)


def whole_logits(decoder: Decoder, token_ids: list[int]) -> torch.Tensor:
    """Compute all positions at once, nothing before them."""
    return chunked_logits(decoder, token_ids, len(token_ids), block_size=len(token_ids))


def chunked_logits(decoder: Decoder, token_ids: list[int], chunk: int, block_size: int = 16) -> torch.Tensor:
    num_blocks = -(-len(token_ids) // block_size)
    cache = KVCache(
        decoder.config, num_blocks=num_blocks, block_size=block_size, dtype=decoder.dtype, device=CPU
    )
    table = list(range(num_blocks))[::-1]
    rows = []
    for start in range(0, len(token_ids), chunk):
        part = token_ids[start : start + chunk]
        span = SequenceSpan(table, start, len(part))
        plan = plan_attention([span], cache, decoder.config, decoder.dtype, CPU)
        positions = torch.arange(start, start + len(part))
        with torch.inference_mode():
            rows.append(decoder(torch.tensor(part), positions, plan, cache, torch.arange(len(part))))
    return torch.cat(rows)


def random_prompt(length: int, seed: int) -> list[int]:
    return torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("chunk", [1, 5, 16, 32, 99])
def test_a_chunked_prompt_equals_a_whole_one(decoder: Decoder, chunk: int) -> None:
    token_ids = random_prompt(100, seed=1)
    whole = whole_logits(decoder, token_ids)
    assert whole.std() > 1, "a test on uniform logits would pass with any attention"
    torch.testing.assert_close(chunked_logits(decoder, token_ids, chunk), whole, **TOLERANCE)


def test_log_probabilities_while_decoding_equal_those_of_reading_the_text_again(decoder: Decoder) -> None:
    """The engine's own logits, caught as it samples, against one pass over prompt and completion."""
    request = make_request("r", random_prompt(41, seed=2), temperature=1.0, seed=3, max_tokens=40)
    core = make_core(decoder, max_step_tokens=16, max_draft_tokens=0)
    caught: list[torch.Tensor] = []
    forward = core.runner.forward

    def catching(scheduled: Any) -> Any:
        result = forward(scheduled)
        caught.extend(result.logits.clone())
        return result

    core.runner.forward = catching  # type: ignore[method-assign]
    core.add(request)
    sequence = core.scheduler.waiting[0]
    while core.has_work:
        core.step()
    tokens = sequence.tokens_between(0, sequence.num_tokens)
    decoded = torch.stack(caught).log_softmax(-1)
    reread = whole_logits(decoder, tokens)[sequence.num_prompt - 1 : -1].log_softmax(-1)
    assert len(decoded) == sequence.num_completion
    torch.testing.assert_close(decoded, reread, **TOLERANCE)


def make_requests() -> list[AddRequest]:
    return [
        make_request(
            f"r{i}",
            random_prompt(length, seed=i),
            n=1 + (i % 3 == 0),
            temperature=(0.0, 0.8, 1.2)[i % 3],
            top_p=(1.0, 0.9)[i % 2],
            frequency_penalty=(0.0, 0.4)[i // 3 % 2],
            seed=i,
            max_tokens=12 + i,
        )
        for i, length in enumerate([3, 70, 16, 1, 33, 48, 20])
    ]


@pytest.mark.parametrize(
    "limits",
    [{}, {"num_blocks": 9}, {"max_num_seqs": 3, "max_step_tokens": 7}, {"block_size": 3, "num_blocks": 120}],
    ids=["roomy", "preempting", "small steps", "odd blocks"],
)
def test_every_logit_of_the_engine_is_that_of_full_recomputation(
    decoder: Decoder, limits: dict[str, int]
) -> None:
    core = make_core(decoder, **limits)  # type: ignore[arg-type]
    caught: list[tuple[Sequence, int, tuple[int, ...], torch.Tensor]] = []
    forward = core.runner.forward

    def catching(scheduled: list[ScheduledSequence]) -> StepResult:
        result = forward(scheduled)
        rows = iter(result.logits)
        for item in result.complete:
            for place in range(1 + len(item.draft)):
                guessed = item.draft.token_ids[:place]
                caught.append((item.sequence, item.sequence.num_tokens, guessed, next(rows).clone()))
        return result

    core.runner.forward = catching  # type: ignore[method-assign]
    requests = make_requests()
    done = run(core, *requests)
    assert (core.stats.num_preemptions > 0) == (limits == {"num_blocks": 9})
    sequences = {id(sequence): sequence for sequence, *_ in caught}.values()
    assert len(sequences) == len(done.reasons) == sum(request.n for request in requests)
    for sequence in sequences:
        slow = whole_logits(decoder, sequence.tokens_between(0, sequence.num_tokens))
        checked = set()
        for _, num_known, guessed, row in (item for item in caught if item[0] is sequence):
            position = num_known + len(guessed)
            # What follows a wrong guess is computed again, and checked then.
            if (
                sequence.tokens_between(num_known, position) == list(guessed)
                and position < sequence.num_tokens
            ):
                torch.testing.assert_close(row, slow[position - 1], **TOLERANCE)
                checked.add(position)
        # A sibling's first token may come from the logits of the choice that it forked from.
        assert checked >= set(range(sequence.num_prompt + (sequence.index > 0), sequence.num_tokens))
