"""Who computes what: admission, chunks, preemption, forks. The clock is the step; nothing here has a tensor."""

from __future__ import annotations

from mezzo.engine.blocks import BlockPool
from mezzo.engine.drafts import Draft
from mezzo.engine.sampling_params import SamplingParams
from mezzo.engine.scheduler import Scheduler, SchedulerOutput
from mezzo.engine.sequence import Sequence, Status

CHUNK = 8
BLOCK = 4


def make_scheduler(
    *, num_blocks: int = 100, max_num_seqs: int = 8, max_draft_tokens: int = 0, caches_prefixes: bool = False
) -> Scheduler:
    return Scheduler(
        BlockPool(num_blocks, BLOCK),
        max_num_seqs=max_num_seqs,
        max_step_tokens=CHUNK,
        max_draft_tokens=max_draft_tokens,
        caches_prefixes=caches_prefixes,
    )


def make_sequence(arrival: int, num_prompt: int, *, index: int = 0, num_siblings: int = 0) -> Sequence:
    return Sequence(
        request_id=str(arrival),
        index=index,
        prompt_token_ids=[7] * num_prompt,
        params=SamplingParams(),
        seed=0,
        arrival=(arrival, index),
        num_siblings=num_siblings,
    )


def step(scheduler: Scheduler) -> SchedulerOutput:
    """Schedule, and do what the core does with the output: count, and append a token where one is sampled."""
    output = scheduler.schedule()
    scheduler.check_integrity()
    for item in output.scheduled:
        completes = item.completes
        scheduler.advance(item)
        if completes:
            item.sequence.append(1)
    scheduler.check_integrity()
    return output


def work(output: SchedulerOutput) -> list[tuple[str, int]]:
    return [(item.sequence.request_id, item.num_new) for item in output.scheduled]


class TestPrompts:
    def test_a_long_prompt_is_computed_in_chunks(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence(0, 19))
        assert [work(step(scheduler)) for _ in range(4)] == [[("0", 8)], [("0", 8)], [("0", 3)], [("0", 1)]]

    def test_short_prompts_share_a_step(self) -> None:
        scheduler = make_scheduler()
        for arrival, num_prompt in enumerate((3, 4, 5)):
            scheduler.add(make_sequence(arrival, num_prompt))
        assert work(step(scheduler)) == [("0", 3), ("1", 4)]
        assert work(step(scheduler)) == [("0", 1), ("1", 1), ("2", 5)]

    def test_a_chunk_is_never_cut_to_fill_a_step(self) -> None:
        """Else the border of a chunk, and with it the arithmetic, would depend on the neighbours."""
        scheduler = make_scheduler()
        scheduler.add(make_sequence(0, 3))
        scheduler.add(make_sequence(1, 16))
        assert work(step(scheduler)) == [("0", 3)]
        assert work(step(scheduler)) == [("0", 1), ("1", 8)]

    def test_running_streams_advance_beside_a_long_prompt(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence(0, 2))
        step(scheduler)
        scheduler.add(make_sequence(1, 24))
        for _ in range(3):
            assert work(step(scheduler)) == [("0", 1), ("1", 8)]

    def test_an_empty_scheduler_schedules_nothing(self) -> None:
        assert work(make_scheduler().schedule()) == []


class TestAdmission:
    def test_the_batch_has_a_largest_size(self) -> None:
        scheduler = make_scheduler(max_num_seqs=2)
        sequences = [make_sequence(i, 2) for i in range(3)]
        for sequence in sequences:
            scheduler.add(sequence)
        assert work(step(scheduler)) == [("0", 2), ("1", 2)]
        scheduler.remove(sequences[0])
        assert work(step(scheduler)) == [("1", 1), ("2", 2)]

    def test_a_prompt_waits_until_it_fits_with_one_more_token(self) -> None:
        scheduler = make_scheduler(num_blocks=3)
        running, large = make_sequence(0, 3), make_sequence(1, 8)
        scheduler.add(running)
        scheduler.add(large)
        step(scheduler)
        assert scheduler.pool.num_free == 2
        assert large.status is Status.WAITING, "8 tokens would fit, the ninth would not"
        scheduler.remove(running)
        step(scheduler)
        assert large.status is Status.RUNNING

    def test_nobody_overtakes_a_large_prompt(self) -> None:
        scheduler = make_scheduler(num_blocks=3)
        for arrival, num_prompt in enumerate((3, 8, 1)):
            scheduler.add(make_sequence(arrival, num_prompt))
        step(scheduler)
        assert [s.request_id for s in scheduler.waiting] == ["1", "2"]

    def test_the_queue_is_in_order_of_arrival_whatever_the_order_of_adding(self) -> None:
        scheduler = make_scheduler()
        for arrival in (2, 0, 1):
            scheduler.add(make_sequence(arrival, 1))
        scheduler.check_integrity()
        assert [s.request_id for s in scheduler.waiting] == ["0", "1", "2"]


class TestPreemption:
    def test_nobody_is_admitted_in_a_step_that_took_blocks_back(self) -> None:
        """The later one holds blocks for its guesses: with those it would have room again at once."""

        class Guesser:
            def propose(self, most: int, num_running: int) -> Draft:
                return Draft((0,) * most)

        scheduler = make_scheduler(num_blocks=6, max_draft_tokens=16)
        old, new = make_sequence(0, 4), make_sequence(1, 4)
        new.drafter = Guesser()  # type: ignore[assignment]
        scheduler.add(old)
        scheduler.add(new)
        while scheduler.num_preemptions == 0:
            last = step(scheduler)
        assert last.preempted == [new]
        assert work(last) == [("0", 1)]
        assert work(step(scheduler)) == [("0", 1), ("1", CHUNK)]

    def test_the_latest_gives_its_blocks_to_an_older_one_and_keeps_its_tokens(self) -> None:
        scheduler = make_scheduler(num_blocks=4)
        old, new = make_sequence(0, 6), make_sequence(1, 2)
        scheduler.add(old)
        step(scheduler)
        scheduler.add(new)
        while scheduler.num_preemptions == 0:
            last = step(scheduler)
        assert last.preempted == [new]
        assert new.status is Status.WAITING
        assert new.num_computed == 0
        assert new.num_completion > 0
        assert work(last) == [("0", 1)]

    def test_who_comes_back_computes_prompt_and_completion_in_chunks(self) -> None:
        scheduler = make_scheduler(num_blocks=4)
        old, new = make_sequence(0, 3), make_sequence(1, 6)
        scheduler.add(old)
        scheduler.add(new)
        while scheduler.num_preemptions == 0:
            step(scheduler)
        num_known = new.num_tokens
        assert num_known > CHUNK
        scheduler.remove(old)
        assert work(step(scheduler)) == [("1", 8)]
        assert work(step(scheduler)) == [("1", num_known - 8)]
        assert new.num_tokens == num_known + 1

    def test_the_latest_preempts_itself_rather_than_an_older_one(self) -> None:
        scheduler = make_scheduler(num_blocks=2)
        old, new = make_sequence(0, 1), make_sequence(1, 3)
        scheduler.add(old)
        scheduler.add(new)
        step(scheduler)  # the first has room for 2 more tokens, the second for none
        output = step(scheduler)
        assert work(output) == [("0", 1), ("1", 1)]
        output = step(scheduler)
        assert output.preempted == [new]
        assert work(output) == [("0", 1)]

    def test_a_prompt_half_way_is_preempted_too(self) -> None:
        scheduler = make_scheduler(num_blocks=6)
        old, new = make_sequence(0, 3), make_sequence(1, 16)
        scheduler.add(old)
        scheduler.add(new)
        step(scheduler)
        step(scheduler)
        assert new.num_computed == CHUNK
        output = step(scheduler)
        assert output.preempted == [new]
        assert new.num_computed == 0
        assert work(output) == [("0", 1)]


class TestFork:
    def prefilled(self, scheduler: Scheduler, num_prompt: int) -> Sequence:
        first = make_sequence(0, num_prompt, num_siblings=1)
        scheduler.add(first)
        while first.num_computed < num_prompt:
            for item in scheduler.schedule().scheduled:
                scheduler.advance(item)
        return first

    def test_full_blocks_are_shared_and_the_last_is_copied(self) -> None:
        scheduler = make_scheduler()
        first = self.prefilled(scheduler, 6)
        sibling = make_sequence(0, 6, index=1)
        copy = scheduler.fork(first, sibling)
        assert copy == (first.block_table[1], sibling.block_table[1])
        assert sibling.block_table[0] == first.block_table[0]
        assert sibling.block_table[1] != first.block_table[1]
        assert sibling.num_computed == 6
        scheduler.check_integrity()

    def test_the_last_block_is_never_shared_even_when_the_prompt_fills_its_blocks(self) -> None:
        scheduler = make_scheduler()
        first = self.prefilled(scheduler, 8)
        sibling = make_sequence(0, 8, index=1)
        scheduler.fork(first, sibling)
        assert set(first.block_table) & set(sibling.block_table) == set(first.block_table[:2])
        scheduler.check_integrity()

    def test_without_a_place_in_the_batch_the_sibling_is_queued(self) -> None:
        scheduler = make_scheduler(max_num_seqs=1)
        sibling = make_sequence(0, 6, index=1)
        assert scheduler.fork(self.prefilled(scheduler, 6), sibling) is None
        assert list(scheduler.waiting) == [sibling]
        assert sibling.num_computed == 0
        scheduler.check_integrity()

    def test_without_a_free_block_the_sibling_is_queued(self) -> None:
        scheduler = make_scheduler(num_blocks=2)
        sibling = make_sequence(0, 6, index=1)
        assert scheduler.fork(self.prefilled(scheduler, 6), sibling) is None
        assert list(scheduler.waiting) == [sibling]
        scheduler.check_integrity()

    def test_a_queued_sibling_finds_the_prompt_s_full_blocks(self) -> None:
        scheduler = make_scheduler(max_num_seqs=1, caches_prefixes=True)
        first = self.prefilled(scheduler, 10)
        sibling = make_sequence(0, 10, index=1)
        scheduler.fork(first, sibling)
        scheduler.remove(first)
        assert work(step(scheduler)) == [("0", 2)]

    def test_both_go_on_to_publish_what_they_fill(self) -> None:
        scheduler = make_scheduler(caches_prefixes=True)
        first = self.prefilled(scheduler, 10)
        sibling = make_sequence(0, 10, index=1)
        scheduler.fork(first, sibling)
        for token_id in range(5):
            first.append(token_id)
            sibling.append(token_id + 1)
            for item in scheduler.schedule().scheduled:
                scheduler.advance(item)
            scheduler.check_integrity()
        assert first.num_published == sibling.num_published == 3
        assert first.block_table[:2] == sibling.block_table[:2]
        assert first.block_table[2] != sibling.block_table[2]

    def test_a_queued_sibling_stands_before_later_requests(self) -> None:
        scheduler = make_scheduler(max_num_seqs=1)
        first = self.prefilled(scheduler, 6)
        scheduler.add(make_sequence(1, 2))
        scheduler.fork(first, make_sequence(0, 6, index=1))
        assert [s.arrival for s in scheduler.waiting] == [(0, 1), (1, 0)]

    def test_the_first_can_leave_while_the_sibling_goes_on(self) -> None:
        scheduler = make_scheduler()
        first = self.prefilled(scheduler, 9)
        sibling = make_sequence(0, 9, index=1)
        scheduler.fork(first, sibling)
        scheduler.remove(first)
        scheduler.check_integrity()
        assert scheduler.pool.num_blocks - scheduler.pool.num_free == len(sibling.block_table)


def test_removing_frees_blocks_at_once_running_or_waiting() -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    running, waiting = make_sequence(0, 20), make_sequence(1, 20)
    scheduler.add(running)
    scheduler.add(waiting)
    step(scheduler)
    scheduler.remove(waiting)
    scheduler.remove(running)
    scheduler.check_integrity()
    assert not scheduler.has_work
    assert scheduler.pool.num_free == scheduler.pool.num_blocks
