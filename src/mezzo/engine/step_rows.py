"""Which rows of a step's logits belong to whom, what they may take, and what comes of them."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as ListOf
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from mezzo.engine.drafts import Draft
from mezzo.engine.messages import SequenceOutput
from mezzo.engine.sequence import Sequence


@dataclass
class SequenceRows:
    """The rows of one sequence: `first`, and one more for each token of its draft."""

    sequence: Sequence
    first: int
    draft: Draft
    num_accepted: int = 0


@dataclass(frozen=True)
class StepMasks:
    """What each row may take, as it is being computed.

    num_rows    of every sequence of the step
    bound       sequences with a grammar
    computing   masks (vocab_size,) of the rows of each of `bound`
    """

    num_rows: Mapping[Sequence, int]
    bound: list[Sequence]
    computing: Future[list[list[NDArray[np.bool_]]]]

    def result(self) -> dict[Sequence, ListOf[NDArray[np.bool_] | None]]:
        """Wait for the masks, and return one for each row of each sequence, None where all may be taken."""
        free: dict[Sequence, ListOf[NDArray[np.bool_] | None]] = {
            sequence: [None] * num_rows for sequence, num_rows in self.num_rows.items()
        }
        return free | dict(zip(self.bound, self.computing.result(), strict=True))


def merged(outputs: list[SequenceOutput], rows: SequenceRows) -> list[SequenceOutput]:
    """Put a step's outputs of one sequence together, but for markers, and tell what became of its prediction."""
    together: list[SequenceOutput] = []
    for output in outputs:
        before = together.pop() if together and together[-1].marker is None else None
        together.append(output if before is None else _joined(before, output))
    if rows.draft.is_predicted and together:
        num_rejected = len(rows.draft) - rows.num_accepted
        together[-1] = structs.replace(
            together[-1], num_accepted=rows.num_accepted, num_rejected=num_rejected
        )
    return together


def _joined(before: SequenceOutput, output: SequenceOutput) -> SequenceOutput:
    text, num_tokens = before.text + output.text, before.num_tokens + output.num_tokens
    return structs.replace(output, text=text, num_tokens=num_tokens)
