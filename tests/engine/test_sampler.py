"""Drawing tokens: against the distribution that the definition gives, and at its edges.

Statistics use fixed seeds: the tests give the same result every time, and the bounds are those that a correct
sampler misses once in a thousand.
"""

from __future__ import annotations

import math

import pytest
import torch

from mezzo.engine.sampler import draw, sample, uniform_for
from mezzo.engine.sampling_params import SamplingParams
from mezzo.engine.sequence import Sequence

ALMOST_ONE = 1 - 2**-53


def make_sequence(
    completion: tuple[int, ...] = (), *, index: int = 0, seed: int = 0, **params: float
) -> Sequence:
    sequence = Sequence(
        request_id="r",
        index=index,
        prompt_token_ids=[1, 1, 2],
        params=SamplingParams(**params),  # type: ignore[arg-type]
        seed=seed,
        arrival=(0, index),
    )
    for token_id in completion:
        sequence.append(token_id)
    return sequence


def random_logits(vocab_size: int, seed: int, scale: float = 2.0) -> torch.Tensor:
    return torch.randn(vocab_size, generator=torch.Generator().manual_seed(seed)) * scale


def expected_probabilities(logits: torch.Tensor, temperature: float, top_p: float) -> list[float]:
    """The definition, in plain Python and float64: softmax, then the smallest set that reaches top_p."""
    largest = max(logits.tolist())
    weights = [math.exp((x - largest) / temperature) for x in logits.tolist()]
    total = math.fsum(weights)
    probabilities = [w / total for w in weights]
    if top_p == 1:
        return probabilities
    kept, reached = set(), 0.0
    for token_id in sorted(range(len(probabilities)), key=lambda i: -probabilities[i]):
        kept.add(token_id)
        reached += probabilities[token_id]
        if reached >= top_p:
            break
    return [p / reached if i in kept else 0.0 for i, p in enumerate(probabilities)]


class TestDraw:
    @pytest.mark.parametrize("vocab_size", [7, 256, 300])
    @pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.8), (1.5, 0.5)])
    def test_frequencies_are_those_of_the_distribution(
        self, vocab_size: int, temperature: float, top_p: float
    ) -> None:
        logits = random_logits(vocab_size, seed=vocab_size, scale=1.0)
        num_draws = 4000
        counts = [0] * vocab_size
        for i in range(num_draws):
            counts[draw(logits, temperature, top_p, uniform_for(5, 0, i))] += 1
        expected = [p * num_draws for p in expected_probabilities(logits, temperature, top_p)]
        assert all(count == 0 for count, e in zip(counts, expected, strict=True) if e == 0), (
            "outside the nucleus"
        )
        # Pearson's chi square over cells of at least 5, the rest in one.
        cells = [(c, e) for c, e in zip(counts, expected, strict=True) if e >= 5]
        rest = (num_draws - sum(c for c, _ in cells), num_draws - sum(e for _, e in cells))
        if rest[1] > 1:
            cells.append(rest)
        chi_square = sum((c - e) ** 2 / e for c, e in cells)
        degrees = len(cells) - 1
        bound = degrees * (1 - 2 / (9 * degrees) + 3.09 * math.sqrt(2 / (9 * degrees))) ** 3 if degrees else 0
        assert degrees > 0
        assert chi_square < bound

    @pytest.mark.parametrize("top_p", [1.0, 0.7])
    def test_a_finer_uniform_never_goes_backwards(self, top_p: float) -> None:
        """Inversion of a cumulative sum: the rank of the drawn token grows with the number it is drawn by."""
        logits = random_logits(600, seed=1)
        drawn = [draw(logits, 1.0, top_p, i / 500) for i in range(500)]
        order = range(600) if top_p == 1 else logits.argsort(descending=True).tolist()
        ranks = {token_id: rank for rank, token_id in enumerate(order)}
        assert [ranks[t] for t in drawn] == sorted(ranks[t] for t in drawn)

    @pytest.mark.parametrize("uniform", [0.0, 0.5, ALMOST_ONE])
    @pytest.mark.parametrize("top_p", [1.0, 0.9, 1e-9])
    def test_a_tiny_temperature_is_greedy(self, uniform: float, top_p: float) -> None:
        logits = random_logits(1000, seed=2)
        assert draw(logits, 1e-6, top_p, uniform) == int(logits.argmax())
        assert draw(logits, 1e-300, top_p, uniform) == int(logits.argmax())

    @pytest.mark.parametrize("uniform", [0.0, 0.5, ALMOST_ONE])
    def test_a_tiny_nucleus_is_greedy(self, uniform: float) -> None:
        logits = random_logits(1000, seed=3)
        assert draw(logits, 1.0, 1e-9, uniform) == int(logits.argmax())

    @pytest.mark.parametrize("top_p", [1.0, 0.999999, 0.5])
    @pytest.mark.parametrize("uniform", [0.0, ALMOST_ONE])
    def test_a_token_without_probability_is_never_drawn(self, top_p: float, uniform: float) -> None:
        logits = torch.full((513,), -math.inf)
        logits[5] = logits[300] = 1.0
        assert draw(logits, 1.0, top_p, uniform) in (5, 300)

    def test_the_ends_of_the_uniform_are_the_ends_of_the_vocabulary(self) -> None:
        logits = torch.zeros(1000)
        assert draw(logits, 1.0, 1.0, 0.0) == 0
        assert draw(logits, 1.0, 1.0, ALMOST_ONE) == 999

    @pytest.mark.parametrize("vocab_size", [1, 2, 255, 256, 257, 49152])
    @pytest.mark.parametrize("top_p", [1.0, 0.99])
    def test_equal_logits_and_any_vocabulary_size(self, vocab_size: int, top_p: float) -> None:
        for uniform in (0.0, 0.3, ALMOST_ONE):
            token_id = draw(torch.zeros(vocab_size), 1.0, top_p, uniform)
            assert 0 <= token_id < vocab_size

    def test_equal_logits_beyond_the_first_look_are_all_within_reach(self) -> None:
        """A nucleus of 900 of 1,000 tokens: the sorting path."""
        drawn = {draw(torch.zeros(1000), 1.0, 0.9, i / 900 + 1e-6) for i in range(900)}
        assert len(drawn) == 900

    def test_the_nucleus_is_the_same_on_both_sides_of_the_first_look(self) -> None:
        logits = random_logits(2000, seed=4, scale=0.5)
        probabilities = expected_probabilities(logits, 1.0, 1.0)
        best = sorted(range(2000), key=lambda i: -probabilities[i])
        for size in (255, 256, 257):
            top_p = math.fsum(probabilities[i] for i in best[:size]) - 1e-5
            assert draw(logits, 1.0, top_p, 0.0) == best[0]
            assert draw(logits, 1.0, top_p, ALMOST_ONE) == best[size - 1]

    def test_does_not_change_the_logits(self) -> None:
        logits = random_logits(300, seed=6)
        before = logits.clone()
        draw(logits, 0.7, 0.9, 0.5)
        assert torch.equal(logits, before)


class TestUniform:
    def test_known_values(self) -> None:
        """Written down: another machine or version must draw the same text from the same seed."""
        values = [
            uniform_for(0, 0, 0),
            uniform_for(42, 0, 1),
            uniform_for(42, 1, 0),
            uniform_for(2**63 - 1, 7, 99),
        ]
        assert values == [
            0.08234954794796834,
            0.823761698612003,
            0.20854210777421367,
            0.5296807150252786,
        ]

    def test_every_argument_matters_and_none_run_together(self) -> None:
        values = {uniform_for(s, i, p) for s in (1, 11, 111) for i in (1, 11, 111) for p in (1, 11, 111)}
        assert len(values) == 27

    def test_spread_evenly_below_one(self) -> None:
        values = [uniform_for(3, 0, i) for i in range(2000)]
        assert all(0 <= v < 1 for v in values)
        assert abs(sum(values) / 2000 - 0.5) < 0.02


class TestSample:
    def test_greedy_takes_the_most_likely_and_the_lowest_of_equals(self) -> None:
        logits = torch.zeros(3, 700)
        logits[1, 500] = 2.0
        logits[2, 699] = logits[2, 30] = logits[2, 31] = 1.0
        assert sample(logits, [make_sequence() for _ in range(3)]) == [0, 500, 30]

    def test_a_row_is_drawn_alike_in_any_batch(self) -> None:
        logits = torch.stack([random_logits(300, seed=i) for i in range(6)])
        sequences = [make_sequence((3,) * i, seed=i, index=i, temperature=1.0, top_p=0.9) for i in range(6)]
        together = sample(logits.clone(), sequences)
        alone = [sample(logits[i : i + 1].clone(), sequences[i : i + 1])[0] for i in range(6)]
        backwards = sample(logits.flip(0), sequences[::-1])[::-1]
        assert together == alone == backwards

    def test_the_draw_is_that_of_seed_choice_and_position(self) -> None:
        logits = random_logits(300, seed=1)
        sequence = make_sequence((9, 9), seed=77, index=3, temperature=0.8)
        assert sample(logits[None], [sequence]) == [draw(logits, 0.8, 1.0, uniform_for(77, 3, 2))]

    def test_a_row_without_a_finite_maximum_has_no_token_and_spoils_no_other(self) -> None:
        logits = torch.zeros(5, 4)
        logits[0] = math.nan
        logits[1, 2] = math.nan
        logits[2] = -math.inf
        logits[3, 1] = math.inf
        logits[4, 3] = 1.0
        for temperature in (0.0, 1.0):
            sequences = [make_sequence(temperature=temperature) for _ in range(5)]
            token_ids = sample(logits.clone(), sequences)
            assert token_ids[:4] == [None] * 4
            assert token_ids[4] is not None


class TestPenalties:
    def penalised(self, sequence: Sequence, logits: list[float]) -> list[float]:
        row = torch.tensor([logits])
        sample(row, [sequence])
        return [round(x, 6) for x in row[0].tolist()]

    def test_by_hand(self) -> None:
        """Token 3 was produced twice, token 4 once: 2 - 0.5 - 2 * 0.25 = 1 and 2 - 0.5 - 0.25 = 1.25."""
        sequence = make_sequence((3, 4, 3), presence_penalty=0.5, frequency_penalty=0.25)
        assert self.penalised(sequence, [2.0] * 5) == [2.0, 2.0, 2.0, 1.0, 1.25]

    def test_negative_penalties_raise(self) -> None:
        sequence = make_sequence((0, 0, 0), presence_penalty=-1.0, frequency_penalty=-0.5)
        assert self.penalised(sequence, [0.0, 0.0]) == [2.5, 0.0]

    def test_the_prompt_does_not_count(self) -> None:
        """The prompt of these sequences is 1, 1, 2."""
        sequence = make_sequence((), presence_penalty=2.0, frequency_penalty=2.0)
        assert self.penalised(sequence, [1.0, 1.0, 1.0]) == [1.0, 1.0, 1.0]

    def test_they_decide_what_greedy_takes(self) -> None:
        sequence = make_sequence((0,), frequency_penalty=1.0)
        assert sample(torch.tensor([[1.5, 1.0]]), [sequence]) == [1]

    def test_only_the_row_of_the_sequence_changes(self) -> None:
        logits = torch.ones(2, 3)
        sample(logits, [make_sequence((0,)), make_sequence((0,), presence_penalty=1.0)])
        assert logits.tolist() == [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]

    def test_logits_from_inference_mode_are_taken(self) -> None:
        """Tensors that a forward pass made there may be changed there only."""
        with torch.inference_mode():
            logits = torch.tensor([[1.5, 1.0]]) + 0
        assert sample(logits, [make_sequence((0,), frequency_penalty=1.0)]) == [1]
