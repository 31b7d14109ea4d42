"""Random lives of random requests on small pools: the books hold after every step, and everybody ends.

A model of the core without tensors: every computed row gives a token, and sequences end at lengths that were drawn
before. Operations are drawn too: requests arrive and are aborted between any two steps.

The KV cache is modelled too, as what each of its slots stands for: a token after all those before it, and the images
and the workspace that they were computed for. Whoever runs must find in its blocks what it would have computed itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence as ListOf
from dataclasses import dataclass, field
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from mezzo.engine.blocks import BlockPool
from mezzo.engine.drafts import Draft
from mezzo.engine.images import SequenceImage
from mezzo.engine.sampling_params import SamplingParams
from mezzo.engine.scheduler import ScheduledSequence, Scheduler, SchedulerOutput
from mezzo.engine.sequence import Sequence, Status

SALTS = [b"one workspace", b"another"]


class Guesser:
    """A drafter that is right every other time."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def propose(self, most: int, num_running: int) -> Draft:
        return Draft(tuple(self._rng.choices([0, 1], k=self._rng.randint(0, max(0, most)))))


@dataclass
class Life:
    """A scheduler, and what each sequence in it is meant to become.

    slots   what block and offset stand for
    """

    scheduler: Scheduler
    max_length: int
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    slots: dict[tuple[int, int], int] = field(default_factory=dict)
    num_wanted: dict[tuple[int, int], int] = field(default_factory=dict)
    alive: dict[tuple[int, int], Sequence] = field(default_factory=dict)
    num_layers_run: dict[bytes, int] = field(default_factory=dict)
    num_requests: int = 0

    def arrive(self, num_prompt: int, num_completion: int, n: int) -> None:
        num_prompt = min(num_prompt, self.max_length - 1)
        arrival = self.num_requests
        self.num_requests += 1
        for index in range(n):
            self.num_wanted[arrival, index] = min(num_completion + index, self.max_length - num_prompt)
        self._add(arrival, 0, num_prompt, n - 1)

    def _add(self, arrival: int, index: int, num_prompt: int, num_siblings: int) -> Sequence:
        sequence = self._make(arrival, index, num_prompt, num_siblings)
        self.scheduler.add(sequence)
        return sequence

    def _make(self, arrival: int, index: int, num_prompt: int, num_siblings: int) -> Sequence:
        # Few tokens, so that many prompts begin alike, and some as others' answers go on.
        prompt = [num_prompt // 6 % 2 if place < 3 else place // 9 % 2 for place in range(num_prompt)]
        sequence = Sequence(
            request_id=str(arrival),
            index=index,
            prompt_token_ids=prompt,
            params=SamplingParams(),
            seed=0,
            arrival=(arrival, index),
            num_siblings=num_siblings,
            images=_images(num_prompt),
            drafter=Guesser(self.rng),  # type: ignore[arg-type]
            room=self.num_wanted[arrival, index],
            cache_salt=SALTS[arrival % 3 // 2],
        )
        self.alive[arrival, index] = sequence
        return sequence

    def abort(self, arrival: int) -> None:
        for key in [key for key in self.alive if key[0] == arrival]:
            self.scheduler.remove(self.alive.pop(key))

    def step(self) -> None:
        scheduler = self.scheduler
        oldest = scheduler.running[0] if scheduler.running else None
        before = (oldest.num_computed, oldest.num_tokens) if oldest else None
        output = scheduler.schedule()
        scheduler.check_integrity()
        chosen = [item.sequence for item in output.scheduled]
        assert len(set(map(id, chosen))) == len(chosen), "scheduled twice"
        assert not set(map(id, chosen)) & set(map(id, output.preempted)), "preempted and scheduled"
        assert chosen or output.encodings or not self.alive, "work, but no progress"
        is_encoding = oldest is not None and any(
            item.image in oldest.held_images for item in output.encodings
        )
        assert oldest is None or oldest in chosen or is_encoding, f"{oldest} stands still since {before}"

        num_prefilled = sum(item.num_layers * item.image.layer_cost for item in output.encodings)
        if [item.num_layers for item in output.encodings] == [1]:
            num_prefilled = min(num_prefilled, scheduler.chunk)  # a layer may cost more than a step
        self._run_encodings(output)
        for item in output.scheduled:
            sequence, end = item.sequence, item.sequence.num_computed + item.num_new
            assert sequence.status is Status.RUNNING
            assert item.num_new > 0
            assert end <= sequence.num_tokens
            assert end + len(item.draft) <= len(sequence.block_table) * scheduler.pool.block_size
            self._check_what_is_read(sequence)
            is_decoding = sequence.num_completion > 0 and item.num_new == 1 and item.completes
            if not is_decoding:
                num_prefilled += item.num_new
                if sequence.num_computed % scheduler.chunk:
                    assert scheduler.prefix_cache.is_on, "a chunk begins off its border"
                    assert sequence.num_computed % scheduler.pool.block_size == 0, "a chunk begins in a block"
                assert end % scheduler.chunk == 0 or item.completes, "a chunk ends off its border"
                for image in sequence.images_between(sequence.num_computed, end):
                    assert self.num_layers_run[image.key] == image.num_layers, "computed before it is encoded"
        assert num_prefilled <= scheduler.chunk, "a step longer than promised"
        self._check_that_shared_blocks_are_not_written(chosen)
        for item in output.scheduled:
            self._write(item)
        self._commit([(item, item.completes) for item in output.scheduled])
        scheduler.check_integrity()
        self._check_that_chains_are_found_from_their_beginning()

    def _check_that_shared_blocks_are_not_written(self, chosen: list[Sequence]) -> None:
        written = [
            block
            for s in chosen
            for block in s.block_table[s.num_computed // self.scheduler.pool.block_size :]
        ]
        holders = [block for s in self.scheduler.running for block in s.block_table]
        for block in written:
            assert holders.count(block) == 1, f"block {block} is written and shared"
            assert not self.scheduler.pool.is_published(block), f"block {block} is written and can be found"

    def _check_what_is_read(self, sequence: Sequence) -> None:
        found = [self.slots.get(self._slot(sequence, place)) for place in range(sequence.num_computed)]
        assert found == _meanings(sequence)[: sequence.num_computed], f"{sequence} reads what is not its own"

    def _slot(self, sequence: Sequence, place: int) -> tuple[int, int]:
        block, offset = divmod(place, self.scheduler.pool.block_size)
        return sequence.block_table[block], offset

    def _write(self, item: ScheduledSequence) -> None:
        sequence, start = item.sequence, item.sequence.num_computed
        meanings = _meanings(sequence, item.draft.token_ids)
        for place in range(start, start + item.num_new + len(item.draft)):
            self.slots[self._slot(sequence, place)] = meanings[place]

    def _fork(self, sequence: Sequence, sibling: Sequence) -> None:
        copy = self.scheduler.fork(sequence, sibling)
        if copy is not None:
            for offset in range(self.scheduler.pool.block_size):
                if (copy[0], offset) in self.slots:
                    self.slots[copy[1], offset] = self.slots[copy[0], offset]

    def _check_that_chains_are_found_from_their_beginning(self) -> None:
        for sequence in self.alive.values():
            found = [self.scheduler.pool.num_found([key]) for key in sequence.block_keys]
            assert found == sorted(found, reverse=True), f"{sequence}: {found}"

    def _run_encodings(self, output: SchedulerOutput) -> None:
        for key in output.dropped_images:
            self.num_layers_run.pop(key, None)
        for item in output.encodings:
            self.num_layers_run[item.image.key] = self.num_layers_run.get(item.image.key, 0) + item.num_layers

    def _commit(self, computed: list[tuple[ScheduledSequence, bool]]) -> None:
        for item, _ in computed:
            self.scheduler.advance(item)
        ready = [(item.sequence, item.draft.token_ids) for item, completes in computed if completes]
        for sequence, _ in list(ready):
            for index in range(1, sequence.num_siblings + 1):
                sibling = self._make(sequence.arrival[0], index, sequence.num_prompt, 0)
                self._fork(sequence, sibling)
                if sibling.num_computed:
                    ready.append((sibling, ()))
            sequence.num_siblings = 0
        for sequence, draft in ready:
            self._extend(sequence, draft)

    def _extend(self, sequence: Sequence, draft: ListOf[int]) -> None:
        """Add what comes next, and what comes after it as long as the draft holds."""
        for place in range(len(draft) + 1):
            token_id = _meanings(sequence)[-1] // 7 % 2  # a function of all before it, as of a greedy model
            sequence.append(token_id)
            if sequence.num_completion == self.num_wanted[sequence.arrival]:
                self.scheduler.remove(sequence)
                del self.alive[sequence.arrival]
                return
            if place == len(draft) or draft[place] != token_id:
                return
            sequence.num_computed += 1


def _meanings(sequence: Sequence, more: ListOf[int] = ()) -> list[int]:
    """Return what each position of a sequence stands for, that of a draft included."""
    meanings = [crc32(sequence.cache_salt)]  # not hash(): the same in each process
    for place, token_id in enumerate([*sequence.tokens_between(0, sequence.num_tokens), *more]):
        images = tuple(
            (crc32(image.key), place - image.start) for image in sequence.images_between(place, place + 1)
        )
        meanings.append(hash((meanings[-1], token_id, images)))
    return meanings[1:]


def _images(num_prompt: int) -> tuple[SequenceImage, ...]:
    """Return images for a prompt of this length: none, one, or two, some of them the same for several lengths."""
    num_images = min(num_prompt % 3, num_prompt // 4)
    return tuple(
        SequenceImage(
            key=bytes([num_prompt % 7, number]),
            start=1 + number * (num_prompt // num_images),
            num_tokens=num_prompt // num_images - 1,
            height=1,
            width=1,
            pixels=b"",
            num_layers=1 + num_prompt % 7,
            layer_cost=1 + num_prompt % 4 * 3,
        )
        for number in range(num_images)
    )


ARRIVE = st.tuples(
    st.just("arrive"), st.integers(1, 60), st.integers(1, 30), st.sampled_from([1, 1, 1, 2, 4])
)
ABORT = st.tuples(st.just("abort"), st.integers(0, 30), st.just(0), st.just(0))
STEP = st.tuples(st.just("step"), st.integers(1, 6), st.just(0), st.just(0))
OPERATIONS = st.lists(st.one_of(ARRIVE, STEP, ABORT), max_size=25)


@settings(max_examples=150, deadline=None)
@given(
    num_blocks=st.integers(1, 12),
    block_size=st.integers(1, 8),
    max_num_seqs=st.integers(1, 5),
    max_image_tokens=st.integers(0, 60),
    chunk=st.integers(1, 20),
    max_draft_tokens=st.sampled_from([0, 3, 10]),
    caches_prefixes=st.booleans(),
    seed=st.integers(0, 100),
    operations=OPERATIONS,
)
def test_every_sequence_ends_and_the_books_always_balance(
    num_blocks: int,
    block_size: int,
    max_num_seqs: int,
    max_image_tokens: int,
    chunk: int,
    max_draft_tokens: int,
    caches_prefixes: bool,
    seed: int,
    operations: list[tuple[str, int, int, int]],
) -> None:
    pool = BlockPool(num_blocks, block_size)
    scheduler = Scheduler(
        pool,
        max_num_seqs=max_num_seqs,
        max_step_tokens=chunk,
        max_image_tokens=max_image_tokens,
        max_draft_tokens=max_draft_tokens,
        caches_prefixes=caches_prefixes,
    )
    life = Life(scheduler, max_length=num_blocks * block_size, rng=random.Random(seed))
    live_to_the_end(life, operations)


@settings(max_examples=100, deadline=None)
@given(
    num_blocks=st.integers(8, 40),
    block_size=st.integers(1, 4),
    max_num_seqs=st.integers(2, 5),
    chunk=st.integers(3, 20),
    max_draft_tokens=st.sampled_from([0, 6]),
    seed=st.integers(0, 100),
    operations=st.lists(st.one_of(ARRIVE, ARRIVE, STEP, ABORT), min_size=8, max_size=25),
)
def test_what_is_found_is_what_would_have_been_computed(
    num_blocks: int,
    block_size: int,
    max_num_seqs: int,
    chunk: int,
    max_draft_tokens: int,
    seed: int,
    operations: list[tuple[str, int, int, int]],
) -> None:
    """Many requests that begin alike, and room for some of what they leave behind."""
    scheduler = Scheduler(
        BlockPool(num_blocks, block_size),
        max_num_seqs=max_num_seqs,
        max_step_tokens=chunk,
        max_image_tokens=30,
        max_draft_tokens=max_draft_tokens,
        caches_prefixes=True,
    )
    live_to_the_end(Life(scheduler, max_length=num_blocks * block_size, rng=random.Random(seed)), operations)


def live_to_the_end(life: Life, operations: list[tuple[str, int, int, int]]) -> None:
    scheduler, chunk = life.scheduler, life.scheduler.chunk
    for name, first, second, third in operations:
        if name == "arrive" and life.max_length > 1:
            life.arrive(first, second, third)
        elif name == "abort":
            life.abort(first)
        else:
            for _ in range(first):
                life.step()
    # Alone, oldest first, each needs a step per chunk and one per token; preemption may repeat that for each.
    bound = sum(s.num_tokens // chunk + 12 + life.max_length for s in life.alive.values()) * 4 + 50
    bound *= 1 + max((s.num_siblings for s in life.alive.values()), default=0)
    for _ in range(bound):
        if not life.alive:
            break
        life.step()
    assert not life.alive, f"still there after {bound} steps: {list(life.alive.values())}"
    assert not scheduler.has_work
    assert scheduler.pool.num_free == scheduler.pool.num_blocks
    scheduler.image_cache.check_integrity([])


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.integers(1, 30), min_size=2, max_size=8),
    num_blocks=st.integers(8, 14),
    data=st.data(),
)
def test_sequences_of_equal_length_end_in_order_of_arrival_however_often_preempted(
    prompts: list[int], num_blocks: int, data: st.DataObject
) -> None:
    """First come, first served: with the same prompt and completion nobody ends before one who came earlier."""
    num_prompt = prompts[0]
    scheduler = Scheduler(BlockPool(num_blocks, 4), max_num_seqs=4, max_step_tokens=8)
    life = Life(scheduler, max_length=num_blocks * 4)
    num_completion = data.draw(st.integers(1, 20))
    for _ in prompts:
        life.arrive(num_prompt, num_completion, 1)
    ended: list[int] = []
    for _ in range(3000):
        before = set(life.alive)
        life.step()
        ended += [arrival for arrival, _ in sorted(before - set(life.alive))]
        if not life.alive:
            break
    assert ended == sorted(ended)
    assert len(ended) == len(prompts)
