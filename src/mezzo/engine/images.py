"""Images of prompts, and which of them are encoded. Plain data, no tensors: like `blocks`, it can be followed on paper.

The vision encoder turns an image into one embedding for each of its tokens. That is done layer by layer, a few layers
a step, so that a large picture delays running streams no longer than a chunk of a prompt does; and it is done once:
what was encoded stays, by content, until newer images need the room.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceImage:
    """An image in a prompt.

    key               equal for images with equal embeddings, and for no others
    start, num_tokens the prompt's tokens that stand for it
    height, width     of the pixels, which are (height, width, 3) uint8, RGB
    num_layers        layers of the vision encoder
    layer_cost        what one of them costs, in tokens of a prompt
    """

    key: bytes
    start: int
    num_tokens: int
    height: int
    width: int
    pixels: bytes = field(repr=False)
    num_layers: int
    layer_cost: float

    @property
    def end(self) -> int:
        return self.start + self.num_tokens

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any of the image's tokens is in positions start to end."""
        return self.start < end and start < self.end


@dataclass
class ImageEntry:
    """What is known of one image's embeddings.

    num_tokens       what they count for in the cache
    num_layers_left  layers still to be run; at 0 the embeddings are there
    num_users        sequences that need them for the chunk they are at
    """

    num_tokens: int
    num_layers_left: int
    num_users: int = 0

    @property
    def is_encoded(self) -> bool:
        return self.num_layers_left == 0


class ImageCache:
    """Embeddings of the images that were used last, by content.

    Those in use are always kept; of the others, the least recently used go first once there are more than
    `max_tokens` tokens. What goes is listed in `dropped` until whoever holds the tensors takes it from there.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.dropped: list[bytes] = []
        self.num_hits = 0
        self.num_misses = 0
        self._entries: OrderedDict[bytes, ImageEntry] = OrderedDict()

    @property
    def num_tokens(self) -> int:
        return sum(entry.num_tokens for entry in self._entries.values())

    def entry(self, image: SequenceImage) -> ImageEntry:
        """Return the entry of an image that was acquired."""
        return self._entries[image.key]

    def acquire(self, image: SequenceImage) -> None:
        """Keep the image's entry, making it if need be, until it is released as often as it was acquired."""
        entry = self._entries.get(image.key)
        if entry is None:
            entry = self._entries[image.key] = ImageEntry(image.num_tokens, image.num_layers)
            self.num_misses += 1
        else:
            self._entries.move_to_end(image.key)
            self.num_hits += 1
        entry.num_users += 1
        self._shrink()

    def release(self, image: SequenceImage) -> None:
        """Give up one use. Nobody waits for what is unused and half done: it is dropped."""
        entry = self._entries[image.key]
        if entry.num_users < 1:
            raise ValueError("an image is released twice")
        entry.num_users -= 1
        if entry.num_users == 0 and not entry.is_encoded:
            self._drop(image.key)
        self._shrink()

    def take_dropped(self) -> list[bytes]:
        """Return the keys whose embeddings, whole or begun, are no longer wanted. Each is returned once."""
        dropped, self.dropped = self.dropped, []
        return dropped

    def check_integrity(self, images_in_use: list[SequenceImage]) -> None:
        """Check the books against what sequences hold. Raises: AssertionError with the difference."""
        users: dict[bytes, int] = {}
        for image in images_in_use:
            users[image.key] = users.get(image.key, 0) + 1
        counted = {key: entry.num_users for key, entry in self._entries.items() if entry.num_users}
        assert counted == users, f"sequences use {users}, the cache counts {counted}"
        for entry in self._entries.values():
            assert entry.num_users or entry.is_encoded, "a half encoded image that nobody waits for"
        idle = [entry for entry in self._entries.values() if not entry.num_users]
        assert not idle or self.num_tokens <= self.max_tokens, f"{self.num_tokens} tokens are kept"

    def _shrink(self) -> None:
        total = self.num_tokens
        for key in [key for key, entry in self._entries.items() if not entry.num_users]:
            if total <= self.max_tokens:
                return
            total -= self._entries[key].num_tokens
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        del self._entries[key]
        self.dropped.append(key)
