"""Who owns which block of the KV cache, and what can be found in it. Plain data, no tensors: it can be reasoned about
on paper.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence


class BlockPool:
    """A fixed number of blocks, each free or referenced by one or more sequences.

    Sharing: a full block whose content is known may be published under a key, and is then found by it, also when
    nobody references it any more, until its room is needed: least recently used first. A block that is published or
    referenced more than once is never written; sequences write only to blocks that they hold alone.

    Keys form chains: nobody publishes a block without holding the block before it, published too. Blocks are given
    back a chain's end first, so that whatever is found, all that comes before it is found as well.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        # Free blocks with nothing to be found in them. Taken from the end; low numbers first keeps the touched part
        # of the cache small.
        self._empty = list(range(num_blocks - 1, -1, -1))
        # Free blocks that are published, the least recently used first.
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._references = [0] * num_blocks
        self._keys: list[bytes | None] = [None] * num_blocks
        self._by_key: dict[bytes, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody references: what can be allocated, whatever may be found in it."""
        return len(self._empty) + len(self._kept)

    def blocks_for(self, num_tokens: int) -> int:
        """Return how many blocks hold `num_tokens` positions."""
        return -(-num_tokens // self.block_size)

    def can_allocate(self, num_blocks: int, *, beside: Sequence[int] = ()) -> bool:
        """Tell whether so many blocks are free, and still are when those of `beside` are shared first."""
        num_shared = sum(self._references[block] == 0 for block in beside)
        return num_blocks + num_shared <= self.num_free

    def allocate(self, num_blocks: int) -> list[int]:
        """Take blocks that nobody references. Raises: IndexError if there are too few; ask first."""
        if num_blocks > self.num_free:
            raise IndexError(f"{num_blocks} blocks wanted, {self.num_free} free")
        taken = [self._empty.pop() if self._empty else self._evict() for _ in range(num_blocks)]
        for block in taken:
            self._references[block] = 1
        return taken

    def share(self, blocks: Sequence[int]) -> None:
        """Add a reference to blocks that are in use or published."""
        for block in blocks:
            if self._references[block] == 0:
                if block not in self._kept:
                    raise ValueError(f"block {block} is free and cannot be shared")
                del self._kept[block]
            self._references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Give up one reference to each block of a table, in its order; those without any are free again."""
        for block in reversed(blocks):
            if self._references[block] == 0:
                raise ValueError(f"block {block} is released twice")
            self._references[block] -= 1
            if self._references[block] == 0:
                if self._keys[block] is None:
                    self._empty.append(block)
                else:
                    self._kept[block] = None

    def publish(self, block: int, key: bytes) -> int:
        """Let a block that is held alone and full be found by `key`, which no other content has.

        Returns the block that is found: this one, or one that was there before. The caller's reference is to that
        one then, since the two are equal, and this one is free.
        """
        if self._references[block] != 1 or self._keys[block] is not None:
            raise ValueError(f"block {block} is not its publisher's alone")
        found = self._by_key.setdefault(key, block)
        if found == block:
            self._keys[block] = key
        else:
            self.share([found])
            self.release([block])
        return found

    def num_found(self, keys: Sequence[bytes]) -> int:
        """Return how many blocks of a chain, from its beginning, are published."""
        return bisect_left(keys, True, key=lambda key: key not in self._by_key)

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """Return the blocks of a chain that is published. Raises: KeyError if it is not."""
        return [self._by_key[key] for key in keys]

    def is_published(self, block: int) -> bool:
        return self._keys[block] is not None

    def check_integrity(self, tables: list[list[int]]) -> None:
        """Check the books against the block tables of all sequences. Raises: AssertionError with the difference."""
        counts = [0] * self.num_blocks
        for table in tables:
            assert len(set(table)) == len(table), f"a table holds a block twice: {table}"
            for block in table:
                counts[block] += 1
        assert counts == self._references, f"tables say {counts}, the pool says {self._references}"
        free = [*self._empty, *self._kept]
        assert len(set(free)) == len(free), f"a block is free twice: {free}"
        assert {b for b, n in enumerate(counts) if n == 0} == set(free), "what is free is not what is unused"
        published = {key: block for block, key in enumerate(self._keys) if key is not None}
        assert published == self._by_key, "blocks and keys do not lead to each other"
        assert set(self._kept) == set(published.values()) & set(free), "what is kept is not what is published"

    def _evict(self) -> int:
        block, _ = self._kept.popitem(last=False)
        key = self._keys[block]
        assert key is not None
        del self._by_key[key]
        self._keys[block] = None
        return block
