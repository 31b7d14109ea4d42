"""Who owns which block of the KV cache. Plain data, no tensors: it can be reasoned about on paper."""

from __future__ import annotations


class BlockPool:
    """A fixed number of blocks, each free or referenced by one or more sequences.

    Sharing: sequences of one request share the full blocks of their prompt. A block that is referenced more than
    once is never written; `Sequence` tables only ever append to a block they hold alone.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        # Taken from the end; low numbers first keeps the touched part of the cache small.
        self._free = list(range(num_blocks - 1, -1, -1))
        self._references = [0] * num_blocks

    @property
    def num_free(self) -> int:
        return len(self._free)

    def blocks_for(self, num_tokens: int) -> int:
        """Return how many blocks hold `num_tokens` positions."""
        return -(-num_tokens // self.block_size)

    def can_allocate(self, num_blocks: int) -> bool:
        return num_blocks <= len(self._free)

    def allocate(self, num_blocks: int) -> list[int]:
        """Take blocks that nobody references. Raises: IndexError if there are too few; ask first."""
        if num_blocks > len(self._free):
            raise IndexError(f"{num_blocks} blocks wanted, {len(self._free)} free")
        taken = [self._free.pop() for _ in range(num_blocks)]
        for block in taken:
            self._references[block] = 1
        return taken

    def share(self, blocks: list[int]) -> None:
        """Add a reference to blocks that are in use."""
        for block in blocks:
            if self._references[block] == 0:
                raise ValueError(f"block {block} is free and cannot be shared")
            self._references[block] += 1

    def release(self, blocks: list[int]) -> None:
        """Give up one reference to each block; those without any are free again."""
        for block in reversed(blocks):
            if self._references[block] == 0:
                raise ValueError(f"block {block} is released twice")
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free.append(block)

    def check_integrity(self, tables: list[list[int]]) -> None:
        """Check the books against the block tables of all sequences. Raises: AssertionError with the difference."""
        counts = [0] * self.num_blocks
        for table in tables:
            assert len(set(table)) == len(table), f"a table holds a block twice: {table}"
            for block in table:
                counts[block] += 1
        assert counts == self._references, f"tables say {counts}, the pool says {self._references}"
        assert len(set(self._free)) == len(self._free), f"free list holds a block twice: {self._free}"
        assert {b for b, n in enumerate(counts) if n == 0} == set(self._free), (
            "free list is not what is unused"
        )
