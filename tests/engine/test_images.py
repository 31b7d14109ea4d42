"""Which images are encoded when, and what of them is kept. Costs are counted in tokens; nothing here has a tensor."""

from __future__ import annotations

import pytest

from mezzo.engine.blocks import BlockPool
from mezzo.engine.images import ImageCache, SequenceImage
from mezzo.engine.sampling_params import SamplingParams
from mezzo.engine.scheduler import Scheduler, SchedulerOutput
from mezzo.engine.sequence import Sequence
from tests.engine.test_scheduler import step

CHUNK = 8


def make_image(
    key: str = "a", start: int = 0, num_tokens: int = 4, *, num_layers: int = 4, layer_cost: float = 2
) -> SequenceImage:
    return SequenceImage(
        key=key.encode(),
        start=start,
        num_tokens=num_tokens,
        height=1,
        width=1,
        pixels=b"",
        num_layers=num_layers,
        layer_cost=layer_cost,
    )


def make_sequence(arrival: int, num_prompt: int, *images: SequenceImage) -> Sequence:
    return Sequence(
        request_id=str(arrival),
        index=0,
        prompt_token_ids=[7] * num_prompt,
        params=SamplingParams(),
        seed=0,
        arrival=(arrival, 0),
        images=images,
    )


def make_scheduler(*, num_blocks: int = 100, max_image_tokens: int = 100) -> Scheduler:
    pool = BlockPool(num_blocks, 4)
    return Scheduler(pool, max_num_seqs=8, max_step_tokens=CHUNK, max_image_tokens=max_image_tokens)


def work(output: SchedulerOutput) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Return the layers to run by image, and the tokens to compute by sequence."""
    return (
        [(item.image.key.decode(), item.num_layers) for item in output.encodings],
        [(item.sequence.request_id, item.num_new) for item in output.scheduled],
    )


class TestScheduling:
    def test_an_image_is_encoded_before_its_chunk_and_out_of_the_same_budget(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence(0, 6, make_image()))  # 4 layers of 2 tokens fill a step
        assert work(step(scheduler)) == ([("a", 4)], [])
        assert work(step(scheduler)) == ([], [("0", 6)])

    def test_what_is_left_of_the_budget_computes_tokens(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence(0, 4, make_image(num_layers=2)))
        assert work(step(scheduler)) == ([("a", 2)], [("0", 4)])

    def test_a_large_image_is_spread_over_steps_between_which_streams_advance(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence(0, 2))
        step(scheduler)
        scheduler.add(make_sequence(1, 6, make_image(num_layers=10, layer_cost=3)))
        outputs = [work(step(scheduler)) for _ in range(6)]
        assert outputs == [([("a", 2)], [("0", 1)])] * 5 + [([], [("0", 1), ("1", 6)])]

    def test_a_layer_that_costs_more_than_a_chunk_is_run_alone(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence(0, 6, make_image(num_layers=3, layer_cost=1000)))
        assert [work(step(scheduler)) for _ in range(4)] == [([("a", 1)], [])] * 3 + [([], [("0", 6)])]

    def test_only_the_images_of_the_next_chunk_are_encoded(self) -> None:
        scheduler = make_scheduler()
        images = make_image("a", 0, 4, num_layers=1), make_image("b", 10, 4, num_layers=1)
        scheduler.add(make_sequence(0, 16, *images))
        outputs = [work(step(scheduler)) for _ in range(4)]
        assert outputs == [([("a", 1)], []), ([], [("0", 8)]), ([("b", 1)], []), ([], [("0", 8)])]

    def test_an_image_across_a_chunks_border_is_encoded_once_and_held_until_its_end(self) -> None:
        scheduler = make_scheduler(max_image_tokens=0)
        sequence = make_sequence(0, 20, make_image("a", 6, 6, num_layers=1))
        scheduler.add(sequence)
        assert work(step(scheduler)) == ([("a", 1)], [])
        assert work(step(scheduler)) == ([], [("0", 8)])
        assert sequence.held_images
        assert work(step(scheduler)) == ([], [("0", 8)])
        assert not sequence.held_images
        assert step(scheduler).dropped_images == [b"a"]

    def test_two_sequences_with_the_same_picture_share_its_encoding(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence(0, 4, make_image(num_layers=1, layer_cost=1)))
        scheduler.add(make_sequence(1, 3, make_image(num_layers=1, layer_cost=1, num_tokens=3)))
        assert work(step(scheduler)) == ([("a", 1)], [("0", 4), ("1", 3)])
        assert (scheduler.image_cache.num_misses, scheduler.image_cache.num_hits) == (1, 1)

    def test_a_picture_that_comes_again_is_not_encoded_again(self) -> None:
        scheduler = make_scheduler()
        first = make_sequence(0, 4, make_image())
        scheduler.add(first)
        while not first.num_completion:
            step(scheduler)
        scheduler.remove(first)
        scheduler.add(make_sequence(1, 7, make_image(start=2)))
        assert work(step(scheduler)) == ([], [("1", 7)])

    def test_a_preempted_sequence_gives_its_images_back_and_has_them_encoded_again(self) -> None:
        """With room for nothing in the cache; else the second time is free."""
        scheduler = make_scheduler(num_blocks=9, max_image_tokens=0)
        scheduler.add(make_sequence(0, 7))
        step(scheduler)
        late = make_sequence(1, 20, make_image("b", 0, 20, num_layers=1))
        scheduler.add(late)
        assert work(step(scheduler)) == ([("b", 1)], [("0", 1)])
        assert work(step(scheduler)) == ([], [("0", 1), ("1", 8)])
        assert late.held_images
        for _ in range(20):  # the first grows until the second has to go
            output = scheduler.schedule()
            scheduler.check_integrity()
            if output.preempted:
                break
            (item,) = [item for item in output.scheduled if item.sequence is not late]
            scheduler.advance(item)
            item.sequence.append(1)
        assert output.preempted == [late]
        assert not late.held_images
        scheduler.remove(scheduler.running[0])
        assert work(step(scheduler)) == ([("b", 1)], [])

    def test_what_is_half_encoded_is_dropped_with_the_last_who_wants_it(self) -> None:
        scheduler = make_scheduler()
        sequence = make_sequence(0, 4, make_image(num_layers=10))
        scheduler.add(sequence)
        step(scheduler)
        scheduler.remove(sequence)
        output = step(scheduler)
        assert (output.dropped_images, output.encodings) == ([b"a"], [])
        scheduler.add(make_sequence(1, 4, make_image(num_layers=10)))
        assert work(step(scheduler)) == ([("a", 4)], [])


class TestCache:
    @staticmethod
    def used_once(cache: ImageCache, key: str, num_tokens: int = 4) -> None:
        image = make_image(key, num_tokens=num_tokens)
        cache.acquire(image)
        cache.entry(image).num_layers_left = 0
        cache.release(image)

    def test_the_least_recently_used_goes_first(self) -> None:
        cache = ImageCache(max_tokens=12)
        for key in "abc":
            self.used_once(cache, key)
        self.used_once(cache, "a")
        self.used_once(cache, "d")
        assert cache.take_dropped() == [b"b"]
        assert cache.num_tokens == 12

    def test_what_is_in_use_stays_whatever_it_takes(self) -> None:
        cache = ImageCache(max_tokens=0)
        images = [make_image(key) for key in "ab"]
        for image in images:
            cache.acquire(image)
            cache.entry(image).num_layers_left = 0
        assert cache.take_dropped() == []
        cache.release(images[0])
        assert cache.take_dropped() == [b"a"]
        cache.check_integrity([images[1]])

    def test_a_second_release_is_a_mistake_of_ours(self) -> None:
        cache = ImageCache(max_tokens=10)
        self.used_once(cache, "a")
        with pytest.raises(ValueError, match="released twice"):
            cache.release(make_image("a"))
