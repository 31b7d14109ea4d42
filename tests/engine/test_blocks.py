"""The block pool's books: what is taken, shared, given back, and what it refuses."""

from __future__ import annotations

import pytest

from mezzo.engine.blocks import BlockPool


def make_pool() -> BlockPool:
    return BlockPool(num_blocks=4, block_size=16)


def test_a_new_pool_is_all_free() -> None:
    pool = make_pool()
    assert pool.num_free == 4
    pool.check_integrity([])


@pytest.mark.parametrize(("num_tokens", "num_blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_blocks_for_rounds_up(num_tokens: int, num_blocks: int) -> None:
    assert make_pool().blocks_for(num_tokens) == num_blocks


def test_low_blocks_are_handed_out_first_and_again_first_when_they_return() -> None:
    pool = make_pool()
    first = pool.allocate(2)
    assert first == [0, 1]
    pool.release(first)
    assert pool.allocate(3) == [0, 1, 2]


def test_allocating_too_many_takes_nothing() -> None:
    pool = make_pool()
    held = pool.allocate(2)
    assert pool.can_allocate(2)
    assert not pool.can_allocate(3)
    with pytest.raises(IndexError, match="3 blocks wanted, 2 free"):
        pool.allocate(3)
    pool.check_integrity([held])


def test_a_shared_block_is_free_when_the_last_holder_lets_go() -> None:
    pool = make_pool()
    blocks = pool.allocate(1)
    pool.share(blocks)
    pool.check_integrity([blocks, blocks])
    pool.release(blocks)
    assert pool.num_free == 3
    pool.check_integrity([blocks])
    pool.release(blocks)
    assert pool.num_free == 4


def test_a_free_block_cannot_be_shared_or_released() -> None:
    pool = make_pool()
    with pytest.raises(ValueError, match="block 2 is free"):
        pool.share([2])
    with pytest.raises(ValueError, match="block 2 is released twice"):
        pool.release([2])


class TestPublished:
    KEYS = (b"a", b"ab", b"abc")

    def chain(self, pool: BlockPool, keys: tuple[bytes, ...] = KEYS) -> list[int]:
        """Return the table of someone who has computed a chain and let it go."""
        blocks = pool.allocate(len(keys))
        found = [pool.publish(block, key) for block, key in zip(blocks, keys, strict=True)]
        pool.release(found)
        return found

    def test_what_nobody_holds_is_free_and_found(self) -> None:
        pool = make_pool()
        blocks = self.chain(pool)
        assert pool.num_free == 4
        assert pool.num_found([*self.KEYS, b"abcd"]) == 3
        assert pool.find(self.KEYS) == blocks
        pool.share(blocks)
        assert pool.num_free == 1
        pool.check_integrity([blocks])

    def test_blocks_with_nothing_in_them_are_taken_first(self) -> None:
        pool = make_pool()
        blocks = self.chain(pool)
        assert set(pool.allocate(1)).isdisjoint(blocks)
        assert pool.num_found(self.KEYS) == 3

    def test_the_end_of_a_chain_goes_before_its_beginning(self) -> None:
        pool = make_pool()
        blocks = self.chain(pool)
        pool.allocate(1)
        for num_left in (2, 1, 0):
            assert pool.allocate(1) == [blocks[num_left]]
            assert pool.num_found(self.KEYS) == num_left

    def test_the_least_recently_used_chain_goes_first(self) -> None:
        pool = make_pool()
        old, new = self.chain(pool, (b"x", b"xy")), self.chain(pool, (b"z", b"zz"))
        pool.share(old)
        pool.release(old)
        assert pool.allocate(2) == new[::-1]
        assert pool.num_found((b"x", b"xy")) == 2

    def test_what_is_held_is_never_taken(self) -> None:
        pool = make_pool()
        blocks = self.chain(pool)
        pool.share(blocks[:1])
        taken = pool.allocate(3)
        assert blocks[0] not in taken
        assert pool.num_found(self.KEYS) == 1
        with pytest.raises(IndexError, match="1 blocks wanted, 0 free"):
            pool.allocate(1)
        pool.check_integrity([blocks[:1], taken])

    def test_what_is_to_be_shared_does_not_count_as_room(self) -> None:
        pool = make_pool()
        blocks = self.chain(pool)
        assert pool.can_allocate(4)
        assert pool.can_allocate(1, beside=blocks)
        assert not pool.can_allocate(2, beside=blocks)
        pool.share(blocks)
        assert pool.can_allocate(1, beside=blocks), "they are held already, and take nothing more"

    def test_the_same_content_is_kept_once(self) -> None:
        pool = make_pool()
        first, second = pool.allocate(2)
        assert pool.publish(first, b"a") == first
        assert pool.publish(second, b"a") == first
        assert pool.num_free == 3
        pool.check_integrity([[first], [first]])

    def test_a_shared_block_cannot_be_published(self) -> None:
        pool = make_pool()
        blocks = pool.allocate(1)
        pool.share(blocks)
        with pytest.raises(ValueError, match="block 0 is not its publisher's alone"):
            pool.publish(0, b"a")
        pool.release(blocks)
        pool.publish(0, b"a")
        with pytest.raises(ValueError, match="block 0 is not its publisher's alone"):
            pool.publish(0, b"b")


class TestCheckIntegrity:
    def test_finds_a_block_that_nobody_lists(self) -> None:
        pool = make_pool()
        pool.allocate(1)
        with pytest.raises(AssertionError, match="the pool says"):
            pool.check_integrity([])

    def test_finds_a_table_with_a_block_that_is_free(self) -> None:
        with pytest.raises(AssertionError, match="the pool says"):
            make_pool().check_integrity([[0]])

    def test_finds_a_block_twice_in_one_table(self) -> None:
        pool = make_pool()
        block = pool.allocate(1)
        pool.share(block)
        with pytest.raises(AssertionError, match="holds a block twice"):
            pool.check_integrity([block * 2])
