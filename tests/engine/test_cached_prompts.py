"""Answers of a real model with and without the prefix cache: the same texts, and the same logits but for rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from msgspec import structs
from torch import Tensor

from mezzo.engine.core import EngineCore
from mezzo.engine.messages import AddRequest, SequenceOutput
from mezzo.engine.sampling_params import SamplingParams
from mezzo.model.decoder import Decoder
from tests.tiny import VOCABULARY, make_core, make_request, run

SYSTEM = b"You are a helpful model, and you answer in bytes. "
"""Three blocks of 16, and two tokens."""
SALT = b"of one workspace"


def make_turns() -> list[AddRequest]:
    """Return requests that begin alike, greedy and sampled, with choices, penalties and drafts."""
    return [
        make_request(
            f"r{i}",
            SYSTEM + question,
            n=1 + i % 2,
            cache_salt=SALT,
            temperature=(0.0, 0.8)[i // 2 % 2],
            frequency_penalty=0.3 * (i % 3),
            prediction=b"whatever" if i == 3 else b"",
            seed=i,
            max_tokens=24,
        )
        for i, question in enumerate([b"Why?", b"How?", b"", b"Why not?", b"Why not?" * 5, b"Who?"])
    ]


def catching_logits(core: EngineCore) -> dict[tuple[str, int, int], Tensor]:
    """Let the core's first logits after each number of known tokens be kept, by request and choice."""
    caught: dict[tuple[str, int, int], Tensor] = {}
    forward = core.runner.forward

    def catching(scheduled: Any) -> Any:
        result = forward(scheduled)
        row = 0
        for item in result.complete:
            sequence = item.sequence
            key = (sequence.request_id, sequence.index, sequence.num_tokens)
            caught[key] = result.logits[row].clone()
            row += 1 + len(item.draft)
        return result

    core.runner.forward = catching  # type: ignore[method-assign]
    return caught


@pytest.mark.parametrize(
    "limits",
    [{}, {"num_blocks": 12}, {"max_num_seqs": 2, "max_step_tokens": 7}],
    ids=["roomy", "narrow", "slow"],
)
@pytest.mark.parametrize("is_at_once", [True, False], ids=["at once", "in turn"])
def test_answers_are_the_same_with_and_without(
    decoder: Decoder, limits: dict[str, int], *, is_at_once: bool
) -> None:
    """In float32, where the order of sums tells at most 1e-4 of logits that differ by several."""
    plain = make_core(decoder, prefix_cache=False)
    expected_logits = catching_logits(plain)
    expected = run(plain, *make_turns())
    core = make_core(decoder, **limits)  # type: ignore[arg-type]
    logits = catching_logits(core)
    for requests in [make_turns()] if is_at_once else [[request] for request in make_turns()] * 2:
        done = run(core, *requests)
        for key, text in done.texts.items():
            assert text == expected.texts[key]
    assert core.stats.num_prefix_hits >= 5
    assert core.stats.num_cached_tokens >= 5 * 48
    compared = logits.keys() & expected_logits.keys()
    assert len(compared) > 6 * 15
    for key in compared:
        torch.testing.assert_close(logits[key], expected_logits[key], rtol=0, atol=2e-4)


def outputs_of(core: EngineCore, *requests: AddRequest) -> list[SequenceOutput]:
    for request in requests:
        core.add(request)
    outputs = []
    while core.has_work:
        outputs += core.step()
        core.scheduler.check_integrity()
    return outputs


def cached_tokens(core: EngineCore, request: AddRequest) -> set[int]:
    """Return what the outputs of a request say about its prompt."""
    return {output.num_cached_tokens for output in outputs_of(core, request)}


class TestCounts:
    def test_the_next_turn_of_a_chat_finds_the_first_and_its_answer(self, decoder: Decoder) -> None:
        core = make_core(decoder, vocabulary=structs.replace(VOCABULARY, eos_token_ids=frozenset()))
        first = make_request("a", SYSTEM, cache_salt=SALT, max_tokens=32)
        core.add(first)
        sequence = core.scheduler.waiting[0]
        while core.has_work:
            core.step()
        known = sequence.tokens_between(0, sequence.num_tokens)
        assert len(known) == 82
        assert cached_tokens(core, make_request("b", [*known, 1, 2, 3], cache_salt=SALT)) == {80}

    def test_all_outputs_of_all_choices_say_the_same(self, decoder: Decoder) -> None:
        core = make_core(decoder)
        assert cached_tokens(core, make_request("a", SYSTEM, cache_salt=SALT, n=3)) == {0}
        assert cached_tokens(core, make_request("b", SYSTEM, cache_salt=SALT, n=3)) == {48}
        assert (core.stats.num_prefix_hits, core.stats.num_prefix_misses) == (1, 1)
        assert core.stats.num_cached_tokens == 48
        assert core.stats.num_prompt_tokens == 2 * len(SYSTEM)

    @pytest.mark.parametrize("limits", [{"max_num_seqs": 1}, {"num_blocks": 6}])
    def test_what_a_choice_finds_of_another_or_of_itself_is_not_the_prompt_s(
        self, decoder: Decoder, limits: dict[str, int]
    ) -> None:
        core = make_core(decoder, **limits)  # type: ignore[arg-type]
        assert cached_tokens(core, make_request("a", SYSTEM, cache_salt=SALT, n=4, max_tokens=30)) == {0}
        assert core.stats.num_prefix_misses == 1
        assert core.stats.num_prefix_hits == 0

    def test_an_aborted_request_says_what_it_found(self, decoder: Decoder) -> None:
        core = make_core(decoder)
        run(core, make_request("a", SYSTEM, cache_salt=SALT))
        core.add(make_request("b", SYSTEM, cache_salt=SALT, n=2))
        core.add(make_request("c", SYSTEM, cache_salt=SALT))
        assert [output.num_cached_tokens for output in core.abort("c")] == [0], "it had not begun"
        core.step()
        assert [output.num_cached_tokens for output in core.abort("b")] == [48, 48]

    def test_without_a_salt_nothing_is_shared(self, decoder: Decoder) -> None:
        core = make_core(decoder)
        for request_id in ("a", "b"):
            assert cached_tokens(core, make_request(request_id, SYSTEM)) == {0}

    def test_two_workspaces_share_nothing(self, decoder: Decoder) -> None:
        core = make_core(decoder)
        assert cached_tokens(core, make_request("a", SYSTEM, cache_salt=b"one")) == {0}
        assert cached_tokens(core, make_request("b", SYSTEM, cache_salt=b"other")) == {0}
        assert cached_tokens(core, make_request("c", SYSTEM, cache_salt=b"one")) == {48}

    def test_off_nothing_is_found(self, decoder: Decoder) -> None:
        core = make_core(decoder, prefix_cache=False)
        for request_id in ("a", "b"):
            assert cached_tokens(core, make_request(request_id, SYSTEM, cache_salt=SALT)) == {0}
        assert core.stats.num_prefix_misses == 0


def num_rows_of(core: EngineCore, *requests: AddRequest) -> int:
    """Run requests and return how many tokens were computed, drafts left out."""
    num_rows = 0
    forward = core.runner.forward

    def counting(scheduled: Any) -> Any:
        nonlocal num_rows
        num_rows += sum(item.num_new for item in scheduled)
        return forward(scheduled)

    core.runner.forward = counting  # type: ignore[method-assign]
    run(core, *requests)
    return num_rows


def test_a_choice_without_a_place_finds_the_prompt_when_it_has_one(decoder: Decoder) -> None:
    for salt in (SALT, None):
        core = make_core(decoder, max_num_seqs=1, max_draft_tokens=0)
        request = make_request("r", SYSTEM, n=2, cache_salt=salt, max_tokens=1)
        assert num_rows_of(core, request) == len(SYSTEM) + len(SYSTEM) - 48


def test_requests_at_once_compute_their_common_beginning_once(decoder: Decoder) -> None:
    core = make_core(decoder, max_num_seqs=16, num_blocks=200, max_draft_tokens=0)
    requests = [
        make_request(f"r{i}", SYSTEM * 4 + bytes([i]), cache_salt=SALT, max_tokens=2) for i in range(16)
    ]
    assert num_rows_of(core, *requests) == 201 + 15 * (201 - 192) + 16, (
        "one whole prompt, the ends of the others, and a token each"
    )


@pytest.mark.parametrize("scored_from", [1, 17, 40, 49])
def test_scores_are_the_same_with_and_without(decoder: Decoder, scored_from: int) -> None:
    def scores(core: EngineCore) -> list[float]:
        request = AddRequest(
            request_id="r",
            prompt_token_ids=list(SYSTEM),
            params=SamplingParams(max_tokens=0),
            scored_from=scored_from,
            cache_salt=SALT,
        )
        (output,) = outputs_of(core, request)
        assert output.num_cached_tokens == core.stats.num_cached_tokens
        return [score.logprob for score in output.scores]

    core = make_core(decoder)
    run(core, make_request("first", SYSTEM, cache_salt=SALT))
    found = scores(core)
    assert core.stats.num_cached_tokens == (scored_from - 1) // 16 * 16
    assert len(found) == len(SYSTEM) - scored_from
    assert found == pytest.approx(scores(make_core(decoder, prefix_cache=False)), abs=1e-4)
