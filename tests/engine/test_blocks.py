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
