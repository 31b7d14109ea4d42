"""What is found of what was computed, by whom, and who waits for whom. No tensors; random lives: tests/properties."""

from __future__ import annotations

from collections import Counter

import pytest

from mezzo.engine.blocks import BlockPool
from mezzo.engine.drafts import Draft
from mezzo.engine.images import SequenceImage
from mezzo.engine.sampling_params import SamplingParams
from mezzo.engine.scheduler import Scheduler, SchedulerOutput
from mezzo.engine.sequence import Sequence, Status

CHUNK, BLOCK = 8, 4
SYSTEM = list(range(100, 118))
"""A beginning of four blocks and a half."""


def make_scheduler(
    *, num_blocks: int = 100, max_num_seqs: int = 8, max_draft_tokens: int = 0, is_on: bool = True
) -> Scheduler:
    return Scheduler(
        BlockPool(num_blocks, BLOCK),
        max_num_seqs=max_num_seqs,
        max_step_tokens=CHUNK,
        max_image_tokens=100,
        max_draft_tokens=max_draft_tokens,
        caches_prefixes=is_on,
    )


def make_sequence(
    arrival: int,
    prompt: list[int],
    *,
    salt: bytes = b"salt",
    scored_from: int | None = None,
    images: tuple[SequenceImage, ...] = (),
) -> Sequence:
    return Sequence(
        request_id=str(arrival),
        index=0,
        prompt_token_ids=prompt,
        params=SamplingParams(),
        seed=0,
        arrival=(arrival, 0),
        cache_salt=salt,
        scored_from=scored_from,
        images=images,
    )


def make_image(key: bytes, start: int, num_tokens: int) -> SequenceImage:
    return SequenceImage(
        key=key,
        start=start,
        num_tokens=num_tokens,
        height=1,
        width=1,
        pixels=b"",
        num_layers=1,
        layer_cost=0.01,
    )


def step(scheduler: Scheduler, token_id: int = 1) -> SchedulerOutput:
    """Schedule, count, and append a token where one is sampled."""
    output = scheduler.schedule()
    for item in output.scheduled:
        completes = item.completes
        scheduler.advance(item)
        if completes:
            item.sequence.append(token_id)
    scheduler.check_integrity()
    return output


def compute(scheduler: Scheduler, sequence: Sequence, num_completion: int = 1) -> list[int]:
    """Run a sequence to its end, alone; return how many tokens each step computed for it."""
    scheduler.add(sequence)
    steps = []
    while sequence.num_completion < num_completion:
        steps += [item.num_new for item in step(scheduler).scheduled]
    scheduler.remove(sequence)
    scheduler.check_integrity()
    return steps


def work(output: SchedulerOutput) -> list[tuple[str, int]]:
    return [(item.sequence.request_id, item.num_new) for item in output.scheduled]


class TestFound:
    def test_full_blocks_of_a_prompt_are_not_computed_again(self) -> None:
        scheduler = make_scheduler()
        assert compute(scheduler, make_sequence(0, SYSTEM)) == [8, 8, 2]
        again = make_sequence(1, [*SYSTEM, 7, 7])
        assert compute(scheduler, again) == [4]
        assert again.num_cached == 16

    def test_chunks_end_where_they_would_without(self) -> None:
        scheduler = make_scheduler()
        compute(scheduler, make_sequence(0, SYSTEM[:5]))
        assert compute(scheduler, make_sequence(1, SYSTEM)) == [4, 8, 2]

    @pytest.mark.parametrize(
        ("length", "num_cached"), [(3, 0), (4, 0), (5, 4), (8, 4), (9, 8), (16, 12), (17, 16)]
    )
    def test_at_least_one_token_is_computed(self, length: int, num_cached: int) -> None:
        scheduler = make_scheduler()
        compute(scheduler, make_sequence(0, SYSTEM))
        again = make_sequence(1, SYSTEM[:length])
        compute(scheduler, again)
        assert again.num_cached == num_cached

    @pytest.mark.parametrize(
        ("scored_from", "num_cached"), [(1, 0), (4, 0), (5, 4), (9, 8), (16, 12), (17, 16)]
    )
    def test_what_is_scored_is_computed(self, scored_from: int, num_cached: int) -> None:
        """The probability of a token needs the logits of the one before it."""
        scheduler = make_scheduler()
        compute(scheduler, make_sequence(0, SYSTEM))
        scored = make_sequence(1, SYSTEM, scored_from=scored_from)
        compute(scheduler, scored)
        assert scored.num_cached == num_cached

    def test_an_answer_is_found_too_but_for_its_last_token(self) -> None:
        scheduler = make_scheduler()
        first = make_sequence(0, SYSTEM[:6])
        compute(scheduler, first, num_completion=7)
        known = first.tokens_between(0, first.num_tokens)
        assert len(known) == 13
        second = make_sequence(1, [*known, 5, 5, 5])
        compute(scheduler, second)
        assert second.num_cached == 12

    def test_what_a_rejected_draft_left_is_not_found(self) -> None:
        """Seven of eight positions are computed, and the draft has written to the eighth."""
        scheduler = make_scheduler(max_draft_tokens=4)
        first = make_sequence(0, SYSTEM[:6])

        class Guesser:
            def propose(self, most: int, num_running: int) -> Draft:
                return Draft((8,) * min(most, 4))

        first.drafter = Guesser()  # type: ignore[assignment]
        scheduler.add(first)
        step(scheduler, token_id=1)
        (item,) = scheduler.schedule().scheduled
        assert (first.num_computed, item.num_new, item.draft.token_ids) == (6, 1, (8, 8, 8, 8))
        scheduler.advance(item)
        first.append(1)
        scheduler.remove(first)
        for arrival, tail in enumerate(([1, 8, 8, 8], [1, 1, 8, 8]), 1):
            again = make_sequence(arrival, [*SYSTEM[:6], *tail])
            compute(scheduler, again)
            assert again.num_cached == 4

    def test_what_an_accepted_draft_filled_last_is_found(self) -> None:
        scheduler = make_scheduler()
        first = make_sequence(0, SYSTEM[:6])
        scheduler.add(first)
        step(scheduler)
        for token_id in (2, 3):  # what the core does where a draft holds
            first.append(token_id)
            first.num_computed += 1
        scheduler.remove(first)
        again = make_sequence(1, [*SYSTEM[:6], 1, 2, 3, 4])
        compute(scheduler, again)
        assert again.num_cached == 8

    @pytest.mark.parametrize("change", [0, 3, 5, 11])
    def test_a_block_is_found_only_after_the_same_beginning(self, change: int) -> None:
        scheduler = make_scheduler()
        compute(scheduler, make_sequence(0, SYSTEM))
        other = [*SYSTEM]
        other[change] += 1
        changed = make_sequence(1, other)
        compute(scheduler, changed)
        assert changed.num_cached == change // BLOCK * BLOCK

    def test_equal_blocks_at_other_places_are_others(self) -> None:
        scheduler = make_scheduler()
        compute(scheduler, make_sequence(0, SYSTEM))
        moved = make_sequence(1, [0, 0, 0, 0, *SYSTEM])
        compute(scheduler, moved)
        assert moved.num_cached == 0

    def test_another_salt_finds_nothing(self) -> None:
        scheduler = make_scheduler()
        compute(scheduler, make_sequence(0, SYSTEM, salt=b"one"))
        other = make_sequence(1, SYSTEM, salt=b"other")
        assert compute(scheduler, other) == [8, 8, 2]
        assert other.num_cached == 0
        assert scheduler.prefix_cache.num_hits == 0

    def test_off_nothing_is_found_nor_counted(self) -> None:
        scheduler = make_scheduler(is_on=False)
        for arrival in range(2):
            assert compute(scheduler, make_sequence(arrival, SYSTEM)) == [8, 8, 2]
        assert (scheduler.prefix_cache.num_hits, scheduler.prefix_cache.num_misses) == (0, 0)

    def test_a_request_is_counted_once(self) -> None:
        scheduler = make_scheduler()
        compute(scheduler, make_sequence(0, SYSTEM))
        compute(scheduler, make_sequence(1, SYSTEM))
        counts = scheduler.prefix_cache
        assert (counts.num_hits, counts.num_misses, counts.num_cached_tokens) == (1, 1, 16)


class TestImages:
    PROMPT = (1, 2, *[9] * 7, 3, 4, 5, 6)

    def num_cached(self, first: SequenceImage, second: SequenceImage) -> int | None:
        scheduler = make_scheduler()
        compute(scheduler, make_sequence(0, list(self.PROMPT), images=(first,)))
        again = make_sequence(1, list(self.PROMPT), images=(second,))
        compute(scheduler, again)
        return again.num_cached

    def test_the_same_image_in_the_same_place_is_found(self) -> None:
        assert self.num_cached(make_image(b"k", 2, 7), make_image(b"k", 2, 7)) == 12

    def test_another_image_with_the_same_tokens_is_not(self) -> None:
        assert self.num_cached(make_image(b"k", 2, 7), make_image(b"K", 2, 7)) == 0
        assert self.num_cached(make_image(b"k", 4, 5), make_image(b"K", 4, 5)) == 4

    def test_the_same_image_at_another_place_is_not(self) -> None:
        assert self.num_cached(make_image(b"k", 2, 6), make_image(b"k", 3, 6)) == 0

    def test_an_image_of_which_nothing_is_left_to_compute_is_not_encoded(self) -> None:
        scheduler = make_scheduler()
        compute(scheduler, make_sequence(0, list(self.PROMPT), images=(make_image(b"k", 2, 6),)))
        scheduler.image_cache = type(scheduler.image_cache)(0)
        compute(scheduler, make_sequence(1, list(self.PROMPT), images=(make_image(b"k", 2, 6),)))
        assert scheduler.image_cache.num_misses == 0


class TestRoom:
    def test_what_is_kept_makes_room_for_what_is_new(self) -> None:
        scheduler = make_scheduler(num_blocks=5)
        compute(scheduler, make_sequence(0, SYSTEM))
        assert compute(scheduler, make_sequence(1, list(range(18)))) == [8, 8, 2]
        assert compute(scheduler, make_sequence(2, SYSTEM)) == [8, 8, 2]

    def test_a_newcomer_s_own_beginning_is_not_taken_to_make_room_for_it(self) -> None:
        scheduler = make_scheduler(num_blocks=5)
        compute(scheduler, make_sequence(0, SYSTEM[:12]))
        again = make_sequence(1, SYSTEM)
        assert compute(scheduler, again) == [4, 2]
        assert again.num_cached == 12

    def test_who_shares_needs_room_only_for_the_rest(self) -> None:
        scheduler = make_scheduler(num_blocks=7)
        first, second = make_sequence(0, SYSTEM), make_sequence(1, SYSTEM)
        scheduler.add(first)
        while not first.num_completion:
            step(scheduler)
        scheduler.add(second)
        step(scheduler)
        assert second.status is Status.RUNNING
        assert second.block_table[:4] == first.block_table[:4]
        assert scheduler.pool.num_free == 1

    def test_the_preempted_find_their_own_blocks_again(self) -> None:
        scheduler = make_scheduler(num_blocks=7)
        old, new = make_sequence(0, [1, 2, 3]), make_sequence(1, SYSTEM)
        scheduler.add(old)
        scheduler.add(new)
        while scheduler.num_preemptions == 0:
            step(scheduler)
        num_computed = new.num_tokens - 1
        assert new.num_cached == 0
        scheduler.remove(old)
        step(scheduler)
        assert new.num_computed - num_computed in (0, 1)
        assert new.num_cached == 0, "what it computed itself was not a hit of its prompt"
        assert scheduler.prefix_cache.num_hits == 0

    def test_equal_answers_share_their_blocks(self) -> None:
        scheduler = make_scheduler()
        first = make_sequence(0, SYSTEM)
        scheduler.add(first)
        while not first.num_completion:
            step(scheduler)
        second = make_sequence(1, SYSTEM)
        scheduler.add(second)
        for _ in range(7):
            step(scheduler)
        assert second.num_computed // BLOCK == 6
        assert second.block_table[:6] == first.block_table[:6]


class TestWaiting:
    def test_many_with_the_same_beginning_compute_it_once(self) -> None:
        scheduler = make_scheduler(max_num_seqs=16)
        for arrival in range(16):
            scheduler.add(make_sequence(arrival, [*SYSTEM, arrival]))
        sequences = list(scheduler.waiting)
        num_computed: Counter[str] = Counter()
        while not all(sequence.num_completion for sequence in sequences):
            for item in scheduler.schedule().scheduled:
                is_prompt = item.sequence.num_completion == 0
                num_computed[item.sequence.request_id] += item.num_new * is_prompt
                completes = item.completes
                scheduler.advance(item)
                if completes:
                    item.sequence.append(1)
        assert list(num_computed.values()) == [19] + [3] * 15
        assert [sequence.num_cached for sequence in sequences] == [0] + [16] * 15

    def test_those_behind_who_share_nothing_do_not_wait(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence(0, SYSTEM[:5]))
        scheduler.add(make_sequence(1, SYSTEM))
        scheduler.add(make_sequence(2, [5, 6, 7]))
        assert work(step(scheduler)) == [("0", 5), ("2", 3)]
        assert work(step(scheduler)) == [("0", 1), ("2", 1), ("1", 4)]

    def test_another_workspace_does_not_wait(self) -> None:
        scheduler = make_scheduler()
        same, other = make_sequence(1, SYSTEM), make_sequence(2, SYSTEM, salt=b"other")
        scheduler.add(make_sequence(0, SYSTEM[:5]))
        scheduler.add(same)
        scheduler.add(other)
        step(scheduler)
        assert (same.status, other.status) == (Status.WAITING, Status.RUNNING)
        assert other.num_cached == 0

    def test_who_shares_less_than_a_block_does_not_wait(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence(0, SYSTEM[:5]))
        scheduler.add(make_sequence(1, SYSTEM[:3]))
        assert work(step(scheduler)) == [("0", 5), ("1", 3)]

    def test_a_wait_ends_where_the_ways_part(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence(0, [*SYSTEM[:8], *[5] * 40]))
        scheduler.add(make_sequence(1, [*SYSTEM[:8], 6]))
        assert work(step(scheduler)) == [("0", 8)]
        second = scheduler.waiting[0]
        step(scheduler)
        assert second.status is Status.RUNNING
        assert second.num_cached == 8

    def test_when_the_one_that_computes_is_aborted_the_next_goes_on_from_there(self) -> None:
        scheduler = make_scheduler()
        first, second = make_sequence(0, SYSTEM), make_sequence(1, SYSTEM)
        scheduler.add(first)
        scheduler.add(second)
        step(scheduler)
        scheduler.remove(first)
        assert work(step(scheduler)) == [("1", 8)]
        assert second.num_cached == 8

    def test_when_the_one_that_computes_is_preempted_it_is_not_waited_for(self) -> None:
        scheduler = make_scheduler(num_blocks=6, max_num_seqs=3)
        old = make_sequence(0, [1, 2, 3])
        scheduler.add(old)
        scheduler.add(make_sequence(1, SYSTEM[:15]))
        scheduler.add(make_sequence(2, SYSTEM[:15]))
        step(scheduler)
        while scheduler.num_preemptions == 0:
            step(scheduler)
        scheduler.remove(old)
        ended = set()
        for _ in range(30):
            for sequence in [item.sequence for item in step(scheduler).scheduled]:
                if sequence.num_completion == 5:
                    scheduler.remove(sequence)
                    ended.add(sequence.request_id)
        assert ended == {"1", "2"}
