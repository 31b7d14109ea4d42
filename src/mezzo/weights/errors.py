"""What goes wrong between a name for weights and a checkpoint folder."""

from __future__ import annotations


class WeightsError(Exception):
    """Weights cannot be had. `str(error)` is one sentence for people.

    hint     the next thing to try, one sentence, or None
    detail   what the tool underneath said last (pip, the hub's client), for a verbose mode, or None
    """

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.detail = detail
