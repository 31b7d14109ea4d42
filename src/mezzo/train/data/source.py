"""Batches for training, drawn by processes of their own: the same number gives the same batch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mezzo.train.chat import ChatFormat, Conversation
from mezzo.train.data import fonts
from mezzo.train.data.fonts import Families, Split
from mezzo.train.data.material import Lexicon
from mezzo.train.data.mixture import Mixture, batch_of_pictures
from mezzo.train.targets import Targets, targets_of

_BATCHES_AHEAD = 3


@dataclass(frozen=True)
class Batch:
    """Pictures of one size.

    pixels          uint8 (pictures, height, width, 3)
    targets         arrays as in `Targets`, the pictures' one after the other
    conversations   one about each picture, in this order; token ids as `ChatFormat` writes them
    """

    pixels: NDArray[np.uint8]
    targets: dict[str, NDArray[np.int64]]
    conversations: list[Conversation]


@dataclass(frozen=True)
class Source:
    """All that decides what is in batch number n.

    cells_in_batch   about how many cells the pictures of a batch have together
    patch_size       of the encoder, in pixels; a cell is merge_size by merge_size patches
    """

    mixture: Mixture
    seed: int
    split: Split
    cells_in_batch: int
    patch_size: int
    merge_size: int
    tokenizer_json: Path
    image_tokens: tuple[int, int, int]

    def open(self) -> OpenSource:
        """Read what drawing needs."""
        chat = ChatFormat(Tokenizer.from_file(str(self.tokenizer_json)), *self.image_tokens)
        return OpenSource(self, Lexicon.from_tokenizer(self.tokenizer_json), chat)


class DrawingStopped(RuntimeError):
    """A process that draws pictures has ended; its own error is on stderr."""


class OpenSource:
    """A source with its words and its tokenizer read."""

    def __init__(self, source: Source, lexicon: Lexicon, chat: ChatFormat) -> None:
        self.source = source
        self.lexicon = lexicon
        self.chat = chat

    def batch(self, number: int) -> Batch:
        """Draw batch `number`."""
        source = self.source
        edge = source.patch_size * source.merge_size
        pictures = batch_of_pictures(
            source.mixture, source.seed, number, source.cells_in_batch, edge,
            split=source.split, lexicon=self.lexicon,
        )  # fmt: skip
        targets = [targets_of(picture, source.patch_size, source.merge_size) for picture in pictures]
        rows, columns = pictures[0].areas.shape[0] // edge, pictures[0].areas.shape[1] // edge
        return Batch(
            pixels=np.stack([picture.pixels for picture in pictures]),
            targets={
                name: np.concatenate([getattr(target, name) for target in targets])
                for name in Targets.__dataclass_fields__
            },
            conversations=[
                # Some clients send the picture first, some the question.
                self.chat.about_picture(picture.turns, rows, columns, image_first=(number + place) % 5 > 1)
                for place, picture in enumerate(pictures)
            ],
        )


@contextmanager
def batches(source: Source, first: int, num_workers: int, stride: int = 1) -> Iterator[Iterator[Batch]]:
    """Draw batches `first`, `first + stride`, ... in processes, a few ahead of their use, and stop them at the end.

    Raises: DrawingStopped where a process ended; LookupError where the machine has no fonts.
    """
    fonts.faces(source.split)  # looked for here, once, and not by each process
    context: Any = multiprocessing.get_context("spawn")
    queues: list[Queue[Batch]] = [context.Queue(_BATCHES_AHEAD) for _ in range(num_workers)]
    workers = [
        context.Process(
            target=_work,
            args=(source, first + place * stride, num_workers * stride, queue, fonts.families()),
            daemon=True,
        )
        for place, queue in enumerate(queues)
    ]
    for worker in workers:
        worker.start()
    try:
        yield _in_turn(queues, workers)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def _in_turn(queues: list[Queue[Batch]], workers: list[Any]) -> Iterator[Batch]:
    import queue as standard  # noqa: PLC0415 - for one exception

    while True:
        for queue, worker in zip(queues, workers, strict=True):
            while True:
                try:
                    batch = queue.get(timeout=5)
                    break
                except standard.Empty:
                    if not worker.is_alive():
                        ended = f"{worker.name} with exit code {worker.exitcode}"
                        raise DrawingStopped(f"a process that draws pictures has ended: {ended}") from None
            yield batch


def _work(source: Source, first: int, step: int, queue: Queue[Batch], found: Families) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and one of them tells
    threading.Thread(target=end_with_parent, daemon=True).start()
    fonts.remember(found)
    opened = source.open()
    number = first
    while True:
        queue.put(opened.batch(number))
        number += step


def end_with_parent() -> None:
    """End this process when the one that wants its pictures was killed: nothing else would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
