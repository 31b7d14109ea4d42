"""Which blocks a sequence need not compute, because another, or itself before it was preempted, has done so.

A full block is found by a key that chains: a hash of the key before it, the block's tokens, and the images that have
tokens in it. The first key before all others is the request's salt: requests with different salts, which are those of
different workspaces, find nothing of each other, and do not wait for each other either.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable

from mezzo.engine.blocks import BlockPool
from mezzo.engine.sequence import Sequence

_KEY_BYTES = 32


class PrefixCache:
    """Finds and publishes the blocks of sequences, unless it is off.

    num_hits, num_misses   prompts whose beginning was found, and those that had nothing to be found
    num_cached_tokens      tokens of prompts that were found
    """

    def __init__(self, pool: BlockPool, *, is_on: bool) -> None:
        self.pool = pool
        self.is_on = is_on
        self.num_hits = 0
        self.num_misses = 0
        self.num_cached_tokens = 0

    def find(self, sequence: Sequence, running: Iterable[Sequence]) -> list[int] | None:
        """Return the blocks that hold the beginning of what a waiting sequence has to compute, as far as there are any.

        None where the next block after them is about to be computed by one of those that run: it is not computed twice.
        """
        keys = self._keys(sequence)[: sequence.num_reusable // self.pool.block_size]
        num_found = self.pool.num_found(keys)
        if num_found < len(keys) and any(
            other.block_keys[num_found : num_found + 1] == keys[num_found : num_found + 1]
            for other in running
        ):
            return None
        return self.pool.find(keys[:num_found])

    def start(self, sequence: Sequence, found: list[int]) -> None:
        """Let a sequence begin with what was found for it."""
        self.pool.share(found)
        sequence.block_table = found
        sequence.num_published = len(found)
        sequence.num_computed = len(found) * self.pool.block_size
        if sequence.num_cached is None and self.is_on:
            sequence.num_cached = sequence.num_computed
            self.num_cached_tokens += sequence.num_cached
            self.num_hits += sequence.num_cached > 0
            self.num_misses += sequence.num_cached == 0

    def publish(self, sequence: Sequence) -> None:
        """Let others find the blocks that a sequence has filled with tokens that are its own for certain."""
        num_full = sequence.num_computed // self.pool.block_size
        if not self.is_on or num_full == sequence.num_published:
            return
        keys, table = self._keys(sequence), sequence.block_table
        for index in range(sequence.num_published, num_full):
            table[index] = self.pool.publish(table[index], keys[index])
        sequence.num_published = num_full

    def check_integrity(self, sequence: Sequence) -> None:
        """Check that what a running sequence has published is found, and nothing that it may still write.

        Raises: AssertionError.
        """
        num_published, table = sequence.num_published, sequence.block_table
        assert num_published * self.pool.block_size <= sequence.num_computed, f"{sequence} published too much"
        found = self.pool.find(sequence.block_keys[:num_published])
        assert found == table[:num_published], f"{sequence} holds {table}, and published {found}"
        own = [block for block in table[num_published:] if self.pool.is_published(block)]
        assert not own, f"{sequence} may still write to {own}, which others find"

    def _keys(self, sequence: Sequence) -> list[bytes]:
        """Return the keys of all blocks that the known tokens of a sequence fill, computed or not."""
        if self.is_on:
            block_size = self.pool.block_size
            for start in range(
                len(sequence.block_keys) * block_size, sequence.num_tokens - block_size + 1, block_size
            ):
                before = sequence.block_keys[-1] if sequence.block_keys else sequence.cache_salt
                sequence.block_keys.append(_key(before, sequence, start, start + block_size))
        return sequence.block_keys


def _key(before: bytes, sequence: Sequence, start: int, end: int) -> bytes:
    digest = hashlib.blake2b(len(before).to_bytes(4) + before, digest_size=_KEY_BYTES)
    digest.update(array("Q", sequence.tokens_between(start, end)))
    for image in sequence.images_between(start, end):
        digest.update(array("q", (image.start - start, image.end - start, len(image.key))))
        digest.update(image.key)
    return digest.digest()
