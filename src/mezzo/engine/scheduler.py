"""Who computes what in the next step. No tensors here; the runner sees only the `SchedulerOutput`.

The rule: sequences that decode always take part, one token each and what they guess to come next. Prompts fill the
rest of the step, first come first served, in chunks of `chunk` tokens, so that a long prompt delays running streams by
one chunk per step. A sequence is admitted when its whole prompt and one more token fit in free blocks. When a running
sequence needs a block and none is free, the sequence that arrived last gives its blocks back and is queued again, in
its old place; its tokens are kept and computed again later. The oldest running sequence therefore always advances, and
since no sequence may be longer than the whole cache, every sequence ends.

A chunk that holds an image waits until the image is encoded. Encoding is scheduled like prompt tokens, out of the same
budget: as many layers of the vision encoder as cost what the rest of a chunk would, and at least one.

What is in the prefix cache is not computed. A newcomer whose next block is about to be computed by a running sequence
stays in the queue for this step, and others may pass it: it waits only for sequences that run, and those that come
later and share the block wait with it, so that it is the next to compute what is still missing then.

Chunks end at multiples of `chunk`, and begin there or where the prefix cache ends, whatever else is in the step. So the
shape of the arithmetic that a prompt goes through does not depend on its neighbours in the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mezzo.engine.blocks import BlockPool
from mezzo.engine.drafts import NO_DRAFT, Draft
from mezzo.engine.images import ImageCache, SequenceImage
from mezzo.engine.prefix_cache import PrefixCache
from mezzo.engine.sequence import Sequence, Status


@dataclass(frozen=True)
class ScheduledSequence:
    """`num_new` tokens of `sequence`, from position `num_computed` on, are computed in this step, then a draft's.

    What the draft's tokens leave in the cache is overwritten, unless they are accepted.
    """

    sequence: Sequence
    num_new: int
    draft: Draft = NO_DRAFT

    @property
    def completes(self) -> bool:
        """Whether the step catches up with all known tokens, so that a next token can be sampled."""
        return self.sequence.num_computed + self.num_new == self.sequence.num_tokens


@dataclass(frozen=True)
class ScheduledEncoding:
    """`num_layers` further layers of the vision encoder are run on `image` in this step."""

    image: SequenceImage
    num_layers: int


@dataclass
class SchedulerOutput:
    """One step's work, in this order: embeddings to forget, images to encode, tokens to compute.

    preempted   sequences whose blocks were taken back to make it possible
    """

    dropped_images: list[bytes] = field(default_factory=list)
    encodings: list[ScheduledEncoding] = field(default_factory=list)
    scheduled: list[ScheduledSequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)


class Scheduler:
    """The waiting queue, the running batch, and the choice between them."""

    def __init__(
        self,
        pool: BlockPool,
        *,
        max_num_seqs: int,
        max_step_tokens: int,
        max_image_tokens: int = 0,
        max_draft_tokens: int = 0,
        caches_prefixes: bool = False,
    ) -> None:
        self.pool = pool
        self.prefix_cache = PrefixCache(pool, is_on=caches_prefixes)
        self.image_cache = ImageCache(max_image_tokens)
        self.max_num_seqs = max_num_seqs
        self.chunk = max_step_tokens
        self.max_draft_tokens = max_draft_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in order of arrival
        self.num_preemptions = 0

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence in order of arrival."""
        position = len(self.waiting)
        while position and self.waiting[position - 1].arrival > sequence.arrival:
            position -= 1
        self.waiting.insert(position, sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, running or waiting; its blocks are free at once."""
        if sequence.status is Status.RUNNING:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._release(sequence)

    def schedule(self) -> SchedulerOutput:
        """Choose the next step's work and allocate its blocks."""
        output = SchedulerOutput()
        for sequence in list(self.running):
            if (
                sequence.status is Status.RUNNING
                and self._is_decoding(sequence)
                and self._make_room(sequence, output)
            ):
                output.scheduled.append(ScheduledSequence(sequence, 1))
        # A sequence may have been preempted by a later look at an older one; running is in order of arrival, so
        # only sequences after the one that needed room are ever preempted, and none of them is scheduled yet.
        if self.max_draft_tokens:
            output.scheduled = [replace(item, draft=self._draft(item.sequence)) for item in output.scheduled]
        budget: float = self.chunk
        for sequence in self._prefills(output):
            num_new = self._next_chunk(sequence)
            budget = self._encode_images(sequence, num_new, budget, output)
            if num_new > budget:
                break
            budget -= num_new
            output.scheduled.append(ScheduledSequence(sequence, num_new))
        output.dropped_images = self.image_cache.take_dropped()
        return output

    def advance(self, item: ScheduledSequence) -> None:
        """Note that a step has computed `item`, its draft left out."""
        sequence = item.sequence
        sequence.num_computed += item.num_new
        self.prefix_cache.publish(sequence)
        for image in [image for image in sequence.held_images if image.end <= sequence.num_computed]:
            sequence.held_images.remove(image)
            self.image_cache.release(image)

    def fork(self, sequence: Sequence, sibling: Sequence) -> tuple[int, int] | None:
        """Let `sibling` start where `sequence` stands, its prompt just computed, sharing the prompt's blocks.

        Returns the (source, target) blocks whose contents must be copied before the next step, or None. Where there is
        no place in the batch or no free block, the sibling is queued and computes the prompt by itself.
        """
        num_full = sequence.num_computed // self.pool.block_size
        tail = sequence.block_table[num_full:]
        if len(self.running) >= self.max_num_seqs or not self.pool.can_allocate(len(tail)):
            self.add(sibling)
            return None
        shared = sequence.block_table[:num_full]
        self.pool.share(shared)
        own = self.pool.allocate(len(tail))
        sibling.block_table = shared + own
        sibling.num_computed = sequence.num_computed
        sibling.block_keys = sequence.block_keys[:num_full]
        sibling.num_published = sequence.num_published
        self._start(sibling)
        return (tail[0], own[0]) if tail else None

    def check_integrity(self) -> None:
        """Check every invariant. For tests, and cheap enough for an idle moment. Raises: AssertionError."""
        for sequence in self.running:
            assert sequence.status is Status.RUNNING, sequence
            held = len(sequence.block_table) * self.pool.block_size
            assert held >= sequence.num_computed, f"{sequence} holds {held} positions"
            self.prefix_cache.check_integrity(sequence)
        for sequence in self.waiting:
            assert sequence.status is Status.WAITING, sequence
            assert not sequence.block_table, f"{sequence} waits with blocks"
            assert sequence.num_computed == 0, sequence
        assert len(self.running) <= self.max_num_seqs
        for queue in (self.running, list(self.waiting)):
            arrivals = [s.arrival for s in queue]
            assert arrivals == sorted(arrivals), f"out of order of arrival: {queue}"
        self.pool.check_integrity([s.block_table for s in self.running])
        assert not any(s.held_images for s in self.waiting), "images are held for a sequence that waits"
        self.image_cache.check_integrity([image for s in self.running for image in s.held_images])

    @staticmethod
    def _is_decoding(sequence: Sequence) -> bool:
        return sequence.num_tokens - sequence.num_computed == 1 and sequence.num_completion > 0

    def _next_chunk(self, sequence: Sequence) -> int:
        """Return how many tokens of a prompt come next: up to the next multiple of `chunk`."""
        end_of_chunk = (sequence.num_computed // self.chunk + 1) * self.chunk
        return min(end_of_chunk, sequence.num_tokens) - sequence.num_computed

    def _encode_images(
        self, sequence: Sequence, num_new: int, budget: float, output: SchedulerOutput
    ) -> float:
        """Schedule what the images of the next `num_new` tokens still need.

        Returns what is left of the budget; nothing is left when an image is not complete within this step.
        """
        start = sequence.num_computed
        for image in sequence.images_between(start, start + num_new):
            if image not in sequence.held_images:
                self.image_cache.acquire(image)
                sequence.held_images.append(image)
            entry = self.image_cache.entry(image)
            if entry.is_encoded:
                continue
            # At least one: a layer of a large picture may cost more than a chunk, and has to be run all the same.
            affordable = max(int(budget // image.layer_cost), int(budget == self.chunk))
            num_layers = min(affordable, entry.num_layers_left)
            if num_layers:
                output.encodings.append(ScheduledEncoding(image, num_layers))
                entry.num_layers_left -= num_layers
                budget -= num_layers * image.layer_cost
            if not entry.is_encoded:
                return 0
        return budget

    def _prefills(self, output: SchedulerOutput) -> Iterator[Sequence]:
        """Yield sequences with a prompt to compute: those that have begun, then newcomers as they fit."""
        for sequence in list(self.running):
            if not self._is_decoding(sequence):
                yield sequence
        if output.preempted:
            return  # what was taken back from one is not for another, nor for the same one again
        for sequence in list(self.waiting):
            if len(self.running) >= self.max_num_seqs:
                return
            found = self.prefix_cache.find(sequence, self.running)
            if found is None:
                continue
            # One more than the known tokens: the first decoding step must not have to preempt at once.
            num_blocks = self.pool.blocks_for(sequence.num_tokens + 1) - len(found)
            if not self.pool.can_allocate(num_blocks, beside=found):
                return  # nobody overtakes: a large prompt would otherwise wait for ever
            self.waiting.remove(sequence)
            self.prefix_cache.start(sequence, found)
            sequence.block_table += self.pool.allocate(num_blocks)
            self._start(sequence)
            yield sequence

    def _make_room(self, sequence: Sequence, output: SchedulerOutput) -> bool:
        """Allocate the block for the next token, preempting from the back. False: `sequence` itself had to go."""
        while self.pool.blocks_for(sequence.num_tokens) > len(sequence.block_table):
            if self.pool.can_allocate(1):
                sequence.block_table += self.pool.allocate(1)
                continue
            victim = self.running.pop()
            self._release(victim)
            victim.status = Status.WAITING
            self.add(victim)
            self.num_preemptions += 1
            output.preempted.append(victim)
            if victim is sequence:
                return False
        return True

    def _draft(self, sequence: Sequence) -> Draft:
        """Let a decoding sequence guess, as far as blocks are free: nobody gives up blocks for a guess."""
        draft = sequence.draft(self.max_draft_tokens // len(self.running), len(self.running))
        missing = self.pool.blocks_for(sequence.num_tokens + len(draft)) - len(sequence.block_table)
        if missing > 0 and self.pool.can_allocate(missing):
            sequence.block_table += self.pool.allocate(missing)
        return draft.cut(len(sequence.block_table) * self.pool.block_size - sequence.num_tokens)

    def _start(self, sequence: Sequence) -> None:
        sequence.status = Status.RUNNING
        position = len(self.running)
        while position and self.running[position - 1].arrival > sequence.arrival:
            position -= 1
        self.running.insert(position, sequence)

    def _release(self, sequence: Sequence) -> None:
        self.prefix_cache.publish(sequence)
        self.pool.release(sequence.block_table)
        sequence.block_table = []
        sequence.num_published = 0
        sequence.num_computed = 0
        for image in sequence.held_images:
            self.image_cache.release(image)
        sequence.held_images = []
