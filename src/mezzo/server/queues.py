"""The queue before each backend, in which requests wait for their turn."""

from __future__ import annotations

from mezzo.backends.base import Backend
from mezzo.metering.fair_queue import FairQueue


class Queues:
    """Makes the queue of a backend when its first request comes.

    max_waiting: requests that may wait for one backend, in its queue and in the backend's own.
    """

    def __init__(self, *, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._by_backend: dict[int, FairQueue] = {}

    def of(self, backend: Backend) -> FairQueue:
        """Return the queue of a backend."""
        queue = self._by_backend.get(id(backend))
        if queue is None:
            # A few are sent ahead of their place, so that the next one is at hand when a place gets free.
            ahead = min(self._max_waiting, max(1, backend.max_num_seqs // 8))
            queue = FairQueue(backend.max_num_seqs + ahead, max_waiting=self._max_waiting - ahead)
            self._by_backend[id(backend)] = queue
        return queue
