"""The memory of a process that starts: it makes a great many objects, and nearly all of them stay."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def growing_heap() -> Iterator[Callable[[], None]]:
    """Look for no garbage in the block, or until what it gives is called: the start is over then.

    Whatever is there at that time is never looked at again by the collector, and memory that is free goes back to
    the system. For one start at a time.
    """
    if not gc.isenabled():
        yield lambda: None
        return
    gc.disable()
    try:
        yield _settle
    finally:
        if not gc.isenabled():
            _settle()


def _settle() -> None:
    gc.freeze()
    gc.enable()
    if sys.platform == "linux":
        # Of glibc; other C libraries keep less, and have no such function.
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)
