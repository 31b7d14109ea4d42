"""Which backend serves which model id. Starts and stops them all; two ids may share one backend."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from mezzo.backends.base import Backend, EngineCounts


class Router:
    """The backends of a server, by the model id that each one serves."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = dict(backends)
        # One start and one stop for a backend that serves several ids.
        self._distinct = list({id(backend): backend for backend in self._backends.values()}.values())

    @property
    def by_model_id(self) -> Mapping[str, Backend]:
        """The backends by the id of the model card that they serve."""
        return self._backends

    @property
    def backends(self) -> list[Backend]:
        """Each backend once."""
        return list(self._distinct)

    @property
    def is_ready(self) -> bool:
        """Whether every model would be answered without waiting for a load or a restart."""
        return all(backend.is_ready for backend in self._distinct)

    def backend_for(self, model_id: str) -> Backend:
        """Return the backend of a model id. Raises: KeyError for an id that is not served here."""
        return self._backends[model_id]

    def engine_counts(self) -> list[EngineCounts]:
        """Return what each engine process counted itself."""
        return [counts for backend in self._distinct for counts in backend.engine_counts()]

    async def start(self) -> None:
        """Load all weights at once and return when every backend is ready.

        Raises: BackendUnavailable with the first reason at once; `stop` then ends the other loads.
        """
        await asyncio.gather(*(backend.start() for backend in self._distinct))

    async def stop(self) -> None:
        """End every generation and every process. Safe to call twice.

        Raises: the first error of a backend that could not stop, after all were asked to.
        """
        outcomes = await asyncio.gather(
            *(backend.stop() for backend in self._distinct), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
