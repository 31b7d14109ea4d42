"""Drafts: what is guessed, and that nothing but the number of steps depends on it."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from msgspec import structs

from mezzo.engine.drafts import NO_DRAFT, Draft, Drafter
from mezzo.model.decoder import Decoder
from tests.tiny import Collected, make_core, make_request, run

TEXT = list(range(100, 160))


def after(drafter: Drafter, *token_ids: int) -> Draft:
    """Let tokens come that were not drafted, one in each step, and return the next draft."""
    for token_id in token_ids:
        drafter.learn(NO_DRAFT, 0, [token_id])
    return drafter.propose(8, 1)


class TestPredictions:
    def test_it_is_followed_from_its_beginning(self) -> None:
        drafter = Drafter([1, 2, 3], TEXT)
        draft = drafter.propose(8, 1)
        assert draft == Draft(tuple(TEXT[:8]), is_predicted=True)
        drafter.learn(draft, 8, TEXT[:9])
        assert drafter.propose(4, 1).token_ids == tuple(TEXT[9:13])

    def test_after_a_token_in_place_of_another_it_goes_on(self) -> None:
        assert after(Drafter([1], TEXT), *TEXT[:3], 7).token_ids == tuple(TEXT[4:12])

    def test_after_an_insertion_it_is_found_again(self) -> None:
        assert after(Drafter([1], TEXT), *TEXT[:3], 7, 8, 9, *TEXT[3:5]).token_ids == tuple(TEXT[5:13])

    def test_after_a_deletion_it_is_found_again(self) -> None:
        assert after(Drafter([1], TEXT), *TEXT[:3], *TEXT[20:22]).token_ids == tuple(TEXT[22:30])

    def test_of_places_that_look_alike_the_next_one_is_meant(self) -> None:
        text = [5, 6, 1, 5, 6, 2, 5, 6, 3]
        drafter = Drafter([0], text)
        assert after(drafter, 5, 6, 1, 9, 5, 6).token_ids == (2, 5, 6, 3)

    def test_a_wrong_place_is_come_back_from(self) -> None:
        """Two tokens that also stand much later: the text between is not given up for them."""
        text = [*range(10, 20), 5, 6, *range(20, 40), 7, 8, *range(40, 60)]
        drafter = Drafter([0], text)
        after(drafter, *text[:4], 7, 8, 9)  # "7 8" is found far behind, and does not go on as there
        assert after(drafter, *text[5:8]).token_ids == tuple(text[8:16])

    def test_at_its_end_nothing_is_guessed(self) -> None:
        assert after(Drafter([1], TEXT[:5]), *TEXT[:5]) == NO_DRAFT

    def test_it_grows_while_it_holds_and_shrinks_when_it_does_not(self) -> None:
        drafter = Drafter([1], TEXT)
        lengths = []
        for num_accepted in (16, 32):
            draft = drafter.propose(100, 1)
            lengths.append(len(draft))
            drafter.learn(draft, num_accepted, [*draft.token_ids[:num_accepted]])
        assert lengths == [16, 32]
        drafter = Drafter([1], TEXT)
        draft = drafter.propose(100, 1)
        drafter.learn(draft, 2, [*TEXT[:2], 7])
        assert len(drafter.propose(100, 1)) == 3


class TestLookups:
    def test_what_stood_after_the_same_tokens_is_guessed(self) -> None:
        assert after(Drafter([1, 2, 3, 4, 5, 6, 7]), 2, 3, 4) == Draft((5, 6, 7))

    def test_the_latest_place_counts(self) -> None:
        assert after(Drafter([1, 2, 3, 8, 8, 8, 1, 2, 3, 9, 9, 9]), 1, 2, 3).token_ids == (9, 9, 9)

    def test_the_answer_itself_is_looked_up_too(self) -> None:
        assert after(Drafter([0]), 1, 2, 3, 4, 1, 2, 3).token_ids == (4, 1, 2)

    def test_two_equal_tokens_are_not_enough(self) -> None:
        assert after(Drafter([1, 2, 3, 4]), 9, 2, 3) == NO_DRAFT

    def test_what_never_holds_is_given_up_for_a_while(self) -> None:
        """Texts that repeat themselves up to a point: guesses there are, and all are wrong."""
        drafter = Drafter([1, 2, 3, 4] * 4)
        tried = []
        for _ in range(60):
            draft = after(drafter, 1, 2, 3)
            tried.append(bool(draft))
            drafter.learn(draft, 0, [77])
        first_pause = tried.index(False)
        assert 3 < first_pause < 20
        assert any(not a and b for a, b in pairwise(tried[first_pause:])), "it is never tried again"
        assert sum(tried[first_pause:]) < 0.7 * len(tried[first_pause:])

    @pytest.mark.parametrize(("num_running", "is_tried"), [(1, True), (8, True), (64, False)])
    def test_in_a_full_batch_a_guess_must_be_better(self, num_running: int, is_tried: bool) -> None:
        drafter = Drafter([1, 2, 3, 4, 5, 6, 7])
        after(drafter, 1, 2, 3)
        assert bool(drafter.propose(4, num_running)) is is_tried


def test_no_room_no_draft() -> None:
    assert Drafter([1], TEXT).propose(0, 1) == NO_DRAFT
    assert Drafter([1], TEXT).propose(-1, 1) == NO_DRAFT


class TestAnswers:
    @pytest.mark.parametrize("params", [
        {}, {"temperature": 0.8, "seed": 3}, {"temperature": 1.5, "top_p": 0.7, "seed": 4},
        {"presence_penalty": 1.0, "frequency_penalty": 0.5}, {"temperature": 0.5, "seed": 5, "n": 3},
        {"max_tokens": 1}, {"max_tokens": 7},
    ])  # fmt: skip
    def test_they_are_the_same_with_a_prediction(self, decoder: Decoder, params: dict[str, Any]) -> None:
        fields = {"max_tokens": 60} | params
        plain = run(make_core(decoder, max_draft_tokens=0), make_request(**fields))
        expected = _tokens_of(decoder, **fields)
        core = make_core(decoder)
        found = run(core, make_request(prediction=[*expected[:20], 63, *expected[21:]], **fields))
        assert found.texts == plain.texts
        assert found.num_tokens == plain.num_tokens
        assert found.reasons == plain.reasons
        assert fields["max_tokens"] == 1 or core.stats.num_accepted_tokens > 0

    def test_a_right_prediction_takes_few_steps(self, decoder: Decoder) -> None:
        plain = run(make_core(decoder, max_draft_tokens=0), make_request(max_tokens=100))
        core = make_core(decoder)
        text = next(iter(plain.texts.values()))
        tokens = _tokens_of(decoder, max_tokens=100)
        found = run(core, make_request(max_tokens=100, prediction=tokens))
        assert found.texts["r", 0] == text
        assert core.stats.num_steps < 12

    def test_a_stop_string_inside_a_draft_ends_the_answer_there(self, decoder: Decoder) -> None:
        tokens = _tokens_of(decoder, max_tokens=60)
        text = run(make_core(decoder), make_request(max_tokens=60)).texts["r", 0]
        stop = text[20:23]
        plain = run(make_core(decoder, max_draft_tokens=0), make_request(max_tokens=60, stop=(stop,)))
        found = run(make_core(decoder), make_request(max_tokens=60, stop=(stop,), prediction=tokens))
        assert (found.texts, found.num_tokens, found.reasons) == (
            plain.texts,
            plain.num_tokens,
            plain.reasons,
        )
        assert found.reasons["r", 0] == "stop_string"

    def test_a_grammar_holds_within_a_draft(self, decoder: Decoder) -> None:
        schema = {"type": "array", "items": {"enum": ["ab", "cd"]}, "minItems": 3, "maxItems": 6}
        grammar = f"start: %json {json.dumps(schema)}"
        request = structs.replace(make_request(max_tokens=80), grammar=grammar)
        plain = run(make_core(decoder, max_draft_tokens=0), request)
        for prediction in (plain.texts["r", 0].encode(), b'["ab", "cd", "xy", 1]'):
            core = make_core(decoder)
            found = run(core, structs.replace(request, prediction_token_ids=list(prediction)))
            assert found.texts == plain.texts
            assert found.reasons == plain.reasons
            assert core.stats.num_accepted_tokens > 0

    def test_the_distribution_is_that_of_the_model(self, decoder: Decoder) -> None:
        """The second token, over many seeds, with a draft that is right sometimes: as often what it is without.

        With the same seeds the texts are even equal; so the drafted runs have seeds of their own here.
        """
        wrong = b"\x00" * 3

        def seconds(seeds: range, num_drafts: int) -> Counter[str]:
            core = make_core(decoder, max_draft_tokens=num_drafts, max_num_seqs=8)
            requests = [
                make_request(str(seed), prediction=likely + wrong, temperature=1.0, seed=seed, max_tokens=2)
                for seed in seeds
            ]
            return Counter(text[:2] for text in run(core, *requests).texts.values())

        likely = bytes(_tokens_of(decoder, max_tokens=1))
        plain, drafted = seconds(range(1500), 0), seconds(range(10_000, 11_500), 64)
        for text, count in plain.most_common(5):
            spread = (2 * count) ** 0.5
            assert abs(drafted[text] - count) < 4 * spread, (text, count, drafted[text])

    @pytest.mark.parametrize("length", [1, 2, 5, 8])
    def test_choices_that_fork_beside_a_draft_get_logits_of_their_own(
        self, decoder: Decoder, length: int
    ) -> None:
        """As many rows of a draft as there are further choices: the step has as many rows as sequences."""
        shape = {"num_blocks": 200, "max_num_seqs": 20}
        forking = make_request("b", b"xyz", n=1 + length, max_tokens=3)
        expected = run(make_core(decoder, max_draft_tokens=0, **shape), forking).texts
        core = make_core(decoder, **shape)
        tokens = _tokens_of(decoder, max_tokens=40)
        core.add(make_request("a", max_tokens=40, prediction=tokens[: 1 + length]))
        core.step()
        core.add(forking)
        done = Collected()
        done.take(core.step())
        assert core.stats.num_draft_tokens == length
        while core.has_work:
            done.take(core.step())
        assert {key: text for key, text in done.texts.items() if key[0] == "b"} == expected

    def test_a_small_cache_is_enough(self, decoder: Decoder) -> None:
        """Guesses take no blocks from those who need them."""
        requests = [make_request(f"r{i}", prediction=b"x" * 90, max_tokens=60) for i in range(6)]
        plain = run(make_core(decoder, num_blocks=12, max_draft_tokens=0), *requests)
        assert run(make_core(decoder, num_blocks=12), *requests).texts == plain.texts

    def test_what_was_tried_is_told(self, decoder: Decoder) -> None:
        tokens = _tokens_of(decoder, max_tokens=20)
        core = make_core(decoder)
        core.add(make_request(max_tokens=20, prediction=[*tokens[:10], 0, 0]))
        accepted = rejected = 0
        while core.has_work:
            for output in core.step():
                accepted, rejected = accepted + output.num_accepted, rejected + output.num_rejected
        assert accepted == 9  # the first token comes with the prompt, before anything can be tried
        assert rejected >= 1

    def test_a_predicted_token_outside_the_vocabulary_is_refused(self, decoder: Decoder) -> None:
        with pytest.raises(ValueError, match="predicted token"):
            make_core(decoder).add(make_request(prediction=[10_000]))


def _tokens_of(decoder: Decoder, **fields: Any) -> list[int]:
    """Return the tokens of a greedy answer."""
    core = make_core(decoder, max_draft_tokens=0)
    core.add(make_request(**fields))
    sequence = core._requests["r"][0]
    while core.has_work:
        core.step()
    return sequence.tokens_between(sequence.num_prompt, sequence.num_tokens)
