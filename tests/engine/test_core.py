"""The engine core on a tiny random model in float32: ends, errors, choices, aborts, preemption.

Every run checks the books after each step, and that each choice has exactly one last output (`tiny.run`).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch

from mezzo.engine.config import Vocabulary
from mezzo.engine.core import EngineCore
from mezzo.engine.messages import AddRequest
from mezzo.model.decoder import Decoder
from tests.tiny import (
    EOS,
    VOCAB_SIZE,
    VOCABULARY,
    Collected,
    load,
    make_core,
    make_request,
    run,
    write_checkpoint,
)

PROMPT = b"The quick brown fox jumps"


def text_of(decoder: Decoder, prompt: bytes = PROMPT, **params: Any) -> str:
    return run(make_core(decoder), make_request("r", prompt, **params)).texts["r", 0]


def latin(token_ids: frozenset[int] = frozenset({EOS})) -> Vocabulary:
    """Every byte is a character of its own, so that texts and tokens correspond one to one."""
    return Vocabulary(token_bytes=(*(chr(i).encode() for i in range(256)), b""), eos_token_ids=token_ids)


class TestEnds:
    @pytest.mark.parametrize("max_tokens", [1, 2, 17])
    def test_max_tokens(self, decoder: Decoder, max_tokens: int) -> None:
        done = run(make_core(decoder), make_request(max_tokens=max_tokens))
        assert done.reasons["r", 0] == "length"
        assert done.num_tokens["r", 0] == max_tokens

    def test_no_tokens_at_all(self, decoder: Decoder) -> None:
        done = run(make_core(decoder), make_request(max_tokens=0, n=3))
        assert set(done.reasons.values()) == {"length"}
        assert done.num_tokens == {("r", i): 0 for i in range(3)}
        assert set(done.texts.values()) == {""}

    @pytest.mark.parametrize("num_prompt", [1, 100, 254, 255])
    def test_the_end_of_the_model_s_context(self, decoder: Decoder, num_prompt: int) -> None:
        core = make_core(decoder, vocabulary=latin(frozenset()))
        assert core.max_context_length == 256
        done = run(core, make_request("r", bytes(num_prompt), max_tokens=None, temperature=1, seed=1))
        assert done.reasons["r", 0] == "model_length"
        assert done.num_tokens["r", 0] == 256 - num_prompt

    def test_a_cache_smaller_than_the_model_s_context_bounds_it(self, decoder: Decoder) -> None:
        core = make_core(decoder, num_blocks=3)
        assert core.max_context_length == 48
        done = run(core, make_request(max_tokens=None))
        assert done.reasons["r", 0] == "model_length"
        assert done.num_tokens["r", 0] == 48 - len(b"Hello there")

    def test_an_end_token_stops_and_is_counted_but_not_shown(self, decoder: Decoder) -> None:
        whole = run(make_core(decoder, vocabulary=latin()), make_request(max_tokens=20)).texts["r", 0]
        assert len(whole) == 20
        end = next(i for i in range(3, 20) if whole.index(whole[i]) == i)
        token_bytes = list(latin().token_bytes)
        token_bytes[ord(whole[end])] = b""
        vocabulary = Vocabulary(
            token_bytes=tuple(token_bytes), eos_token_ids=frozenset({ord(whole[end]), EOS})
        )
        done = run(make_core(decoder, vocabulary=vocabulary), make_request(max_tokens=20))
        assert done.texts["r", 0] == whole[:end]
        assert done.reasons["r", 0] == "stop"
        assert done.num_tokens["r", 0] == end + 1

    def test_an_end_token_that_is_the_last_allowed_one_is_a_stop(self, decoder: Decoder) -> None:
        first = run(make_core(decoder, vocabulary=latin()), make_request(max_tokens=1)).texts["r", 0]
        vocabulary = latin(frozenset({ord(first)}))
        done = run(make_core(decoder, vocabulary=vocabulary), make_request(max_tokens=1))
        assert done.reasons["r", 0] == "stop"

    @pytest.mark.parametrize("length", [1, 2, 5])
    def test_a_stop_string_across_tokens(self, decoder: Decoder, length: int) -> None:
        whole = run(make_core(decoder, vocabulary=latin()), make_request(max_tokens=30)).texts["r", 0]
        stop = whole[10 : 10 + length]
        cut = whole.index(stop)
        done = run(
            make_core(decoder, vocabulary=latin()), make_request(max_tokens=30, stop=(stop, "never seen"))
        )
        assert done.texts["r", 0] == whole[:cut]
        assert done.reasons["r", 0] == "stop_string"
        assert done.num_tokens["r", 0] == cut + length

    def test_text_held_for_a_stop_string_is_shown_when_the_limit_comes_first(self, decoder: Decoder) -> None:
        whole = run(make_core(decoder, vocabulary=latin()), make_request(max_tokens=10)).texts["r", 0]
        done = run(
            make_core(decoder, vocabulary=latin()), make_request(max_tokens=10, stop=(whole[-2:] + "zzz",))
        )
        assert done.texts["r", 0] == whole
        assert done.reasons["r", 0] == "length"

    def test_rows_of_the_head_beyond_the_tokenizer_are_empty_text(self, decoder: Decoder) -> None:
        vocabulary = Vocabulary(token_bytes=(), eos_token_ids=frozenset())
        done = run(make_core(decoder, vocabulary=vocabulary), make_request(max_tokens=5))
        assert done.texts["r", 0] == ""
        assert done.num_tokens["r", 0] == 5

    def test_logits_that_are_not_numbers_end_the_choice_with_an_error(self, tmp_path: Any) -> None:
        broken = load(write_checkpoint(tmp_path))
        broken.norm.weight.fill_(math.nan)
        done = run(make_core(broken), make_request(n=2))
        assert set(done.reasons.values()) == {"error"}
        assert set(done.num_tokens.values()) == {0}


class TestAdd:
    @pytest.mark.parametrize(
        ("request_", "message"),
        [
            (make_request(prompt=b""), "a prompt of 0 tokens"),
            (make_request(prompt=bytes(256)), "a prompt of 256 tokens does not fit 256 positions"),
            (make_request(prompt=[1, VOCAB_SIZE]), f"outside the vocabulary of {VOCAB_SIZE}"),
            (make_request(prompt=[-1]), "outside the vocabulary"),
            (make_request(n=0), "n must be at least 1"),
        ],
    )
    def test_what_cannot_run_is_refused_and_leaves_nothing(
        self, decoder: Decoder, request_: AddRequest, message: str
    ) -> None:
        core = make_core(decoder)
        with pytest.raises(ValueError, match=message):
            core.add(request_)
        assert not core.has_work

    def test_an_id_in_use_is_refused_until_its_request_has_ended(self, decoder: Decoder) -> None:
        core = make_core(decoder)
        core.add(make_request("a"))
        with pytest.raises(ValueError, match="request a is already running"):
            core.add(make_request("a"))
        while core.has_work:
            core.step()
        run(core, make_request("a"))


class TestChoices:
    PARAMS: ClassVar[dict[str, Any]] = {"temperature": 1.0, "top_p": 0.95, "seed": 11, "max_tokens": 20}

    def test_differ_from_each_other_and_are_the_same_again(self, decoder: Decoder) -> None:
        first = run(make_core(decoder), make_request(n=4, **self.PARAMS))
        again = run(make_core(decoder), make_request(n=4, **self.PARAMS))
        assert first.texts == again.texts
        assert len(set(first.texts.values())) == 4

    def test_the_first_is_the_answer_of_a_request_for_one(self, decoder: Decoder) -> None:
        alone = run(make_core(decoder), make_request(**self.PARAMS))
        assert run(make_core(decoder), make_request(n=3, **self.PARAMS)).texts["r", 0] == alone.texts["r", 0]

    @pytest.mark.parametrize("num_prompt", [5, 16, 32, 33])
    @pytest.mark.parametrize(
        "limits", [{"max_num_seqs": 1}, {"max_num_seqs": 2}, {"num_blocks": 4}, {"num_blocks": 7}]
    )
    def test_forked_or_computed_anew_the_text_is_the_same(
        self, decoder: Decoder, num_prompt: int, limits: dict[str, int]
    ) -> None:
        """Without a place or a block for it, a choice computes the prompt by itself."""
        request = make_request("r", bytes(range(60, 60 + num_prompt)), n=4, **self.PARAMS)
        roomy, narrow = make_core(decoder), make_core(decoder, **limits)  # type: ignore[arg-type]
        assert run(roomy, request).texts == run(narrow, request).texts
        assert roomy.stats.num_steps < narrow.stats.num_steps

    def test_a_forked_prompt_is_computed_once(self, decoder: Decoder) -> None:
        core = make_core(decoder)
        core.add(make_request("r", bytes(64), n=4, max_tokens=3))
        assert [len(core.step()) for _ in range(4)] == [0, 4, 4, 4]

    def test_without_a_seed_two_runs_differ(self, decoder: Decoder) -> None:
        texts = {text_of(decoder, temperature=1.0, max_tokens=20) for _ in range(3)}
        assert len(texts) == 3

    def test_every_choice_has_its_own_penalties(self, decoder: Decoder) -> None:
        params = {**self.PARAMS, "frequency_penalty": 1.5, "presence_penalty": 0.5}
        together = run(make_core(decoder), make_request(n=3, **params))
        narrow = run(make_core(decoder, max_num_seqs=1), make_request(n=3, **params))
        assert together.texts == narrow.texts


class TestPenalties:
    def test_a_strong_penalty_ends_repetition(self, tmp_path: Any) -> None:
        """A model that always prefers the token it saw last says one byte for ever, unless penalised."""
        parrot = load(write_checkpoint(tmp_path, num_hidden_layers=1, tie_word_embeddings=True))
        for layer in parrot.layers:
            layer.attention.wo.weight.zero_()
            layer.feed_forward.w2.weight.zero_()
        parrot.norm.weight.fill_(0.2)
        plain = run(make_core(parrot, vocabulary=latin()), make_request(prompt=b"ab")).texts["r", 0]
        assert plain == "b" * 16
        free = run(
            make_core(parrot, vocabulary=latin()),
            make_request(prompt=b"ab", presence_penalty=2.0, frequency_penalty=2.0),
        ).texts["r", 0]
        assert len(set(free)) > 4


class TestAbort:
    def started(self, core: EngineCore, num_steps: int, **params: Any) -> Collected:
        collected = Collected()
        core.add(make_request("other", PROMPT, temperature=0.8, seed=5, max_tokens=12))
        core.add(make_request("gone", bytes(100), n=3, temperature=0.8, seed=6, **params))
        for _ in range(num_steps):
            collected.take(core.step())
        return collected

    @pytest.mark.parametrize(
        ("num_steps", "max_num_seqs"),
        [(0, 8), (1, 8), (2, 8), (5, 8), (8, 8), (1, 1), (5, 2), (8, 2)],
        ids=[
            "queued",
            "first chunk",
            "second chunk",
            "just forked",
            "decoding",
            "no place",
            "chunk of 2",
            "sibling queued",
        ],
    )
    def test_in_any_phase_blocks_are_free_at_once_and_every_choice_ends(
        self, decoder: Decoder, num_steps: int, max_num_seqs: int
    ) -> None:
        core = make_core(decoder, max_num_seqs=max_num_seqs)
        collected = self.started(core, num_steps)
        collected.take(core.abort("gone"))
        core.scheduler.check_integrity()
        assert {s.request_id for s in (*core.scheduler.running, *core.scheduler.waiting)} == {"other"}
        ends = {key: reason for key, reason in collected.reasons.items() if key[0] == "gone"}
        assert ends == {("gone", i): "abort" for i in range(3)}
        while core.has_work:
            collected.take(core.step())
        assert core.scheduler.pool.num_free == core.scheduler.pool.num_blocks
        alone = run(make_core(decoder), make_request("other", PROMPT, temperature=0.8, seed=5, max_tokens=12))
        assert collected.texts["other", 0] == alone.texts["other", 0]

    def test_choices_that_have_ended_are_not_ended_again(self, decoder: Decoder) -> None:
        core = make_core(decoder, max_num_seqs=2)
        collected = Collected()
        core.add(make_request("r", n=3, max_tokens=4))
        while len(collected.reasons) < 2:
            collected.take(core.step())
        collected.take(core.abort("r"))
        assert sorted(collected.reasons.values()) == ["abort", "length", "length"]
        assert not core.has_work

    def test_while_preempted(self, decoder: Decoder) -> None:
        core = make_core(decoder, num_blocks=6)
        core.add(make_request("a", PROMPT, max_tokens=60))
        core.add(make_request("b", PROMPT, max_tokens=60))
        while core.stats.num_preemptions == 0:
            core.step()
        assert [s.request_id for s in core.scheduler.waiting] == ["b"]
        assert [o.finish_reason for o in core.abort("b")] == ["abort"]
        core.scheduler.check_integrity()
        while core.has_work:
            core.step()

    def test_a_request_that_needs_no_step_ends_once(self, decoder: Decoder) -> None:
        core = make_core(decoder)
        core.add(make_request(max_tokens=0))
        outputs = core.abort("r") + core.step()
        assert [o.finish_reason for o in outputs if o.finish_reason] == ["length"]

    def test_an_unknown_id_is_ignored(self, decoder: Decoder) -> None:
        assert make_core(decoder).abort("nobody") == []


class TestPreemption:
    @pytest.mark.parametrize("num_blocks", [4, 5, 7, 10])
    def test_gives_the_text_of_an_undisturbed_run(self, decoder: Decoder, num_blocks: int) -> None:
        """In float32: tokens computed again in a chunk round differently from tokens computed one by one."""
        requests = [
            make_request(f"r{i}", PROMPT[: 5 + 4 * i], temperature=0.7 * (i % 2), seed=i, max_tokens=25 + i)
            for i in range(5)
        ]
        narrow = make_core(decoder, num_blocks=num_blocks)
        disturbed = run(narrow, *requests)
        assert narrow.stats.num_preemptions > 0
        undisturbed = run(make_core(decoder), *requests)
        assert disturbed.texts == undisturbed.texts
        assert disturbed.reasons == undisturbed.reasons


def test_stats_count_what_happened(decoder: Decoder) -> None:
    core = make_core(decoder)
    core.add(make_request("a", b"12345", max_tokens=3))
    core.add(make_request("b", b"123", n=2, max_tokens=2))
    assert (core.stats.num_running, core.stats.num_waiting) == (0, 2)
    core.step()
    assert core.stats.num_running == 3
    assert core.stats.num_free_blocks == core.stats.num_blocks - 3
    while core.has_work:
        core.step()
    assert core.stats.num_prompt_tokens == 8, "however many choices, a prompt counts once"
    assert core.stats.num_completion_tokens == 3 + 2 * 2
    assert core.stats.num_steps == 3
    assert core.stats.num_running == core.stats.num_waiting == 0


def test_greedy_does_not_depend_on_the_seed(decoder: Decoder) -> None:
    assert text_of(decoder, seed=1) == text_of(decoder, seed=2) == text_of(decoder)


def test_the_vocabulary_of_these_tests_is_whole() -> None:
    assert len(VOCABULARY.token_bytes) == EOS + 1 < VOCAB_SIZE
    assert torch.get_default_dtype() is torch.float32
