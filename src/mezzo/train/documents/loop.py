"""The steps of a run on documents: learn, tell, measure, save; a run goes on where it was killed, to the step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mezzo.train.documents.batches import in_batches
from mezzo.train.documents.learner import Learner
from mezzo.train.documents.samples import Sample
from mezzo.train.log import forget_lines_after
from mezzo.train.state import load_state, save_state

Report = Callable[[dict[str, Any]], None]
_CLIP_NORM = 1.0
_WARM_UP = 0.05  # of all steps
_LINES_OF_LOG = 200  # at most, between the epochs' ends
_FLOAT16_SCALE = 1024.0  # a power of two: gradients that float16 would round to nothing, exactly larger


@dataclass(frozen=True)
class Steps:
    """What a run's steps read and where it is kept.

    batches   of each epoch, as indices of `learnt`
    """

    learnt: list[Sample]
    held_out: list[Sample]
    batches: list[list[list[int]]]
    batch_tokens: int
    learning_rate: float
    state: Path
    log: Path
    save_every_s: float = 120.0

    @property
    def total(self) -> int:
        """Number of all steps."""
        return sum(len(epoch) for epoch in self.batches)


class Loop:
    """A run on its way; `run` is called once."""

    def __init__(self, learner: Learner, updates: nn.ParameterDict, steps: Steps, report: Report) -> None:
        """`report` is called with each line of the log."""
        self._learner = learner
        self._updates = updates
        self._steps = steps
        self._report = report
        self._optimizer = torch.optim.AdamW(
            updates.parameters(), lr=steps.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self._scale = _FLOAT16_SCALE if learner.decoder.dtype is torch.float16 else 1.0
        self._step = 0

    def run(self) -> None:
        """Train until the last step; what was done before a kill is not done again.

        Raises: FloatingPointError when the gradient is no number any more; CannotTrain for pictures that changed.
        """
        steps = self._steps
        if steps.state.exists():
            self._step = int(load_state(steps.state, self._updates, self._optimizer)["step"])
        forget_lines_after(steps.log, self._step)
        first, started = self._step, time.monotonic()
        saved, every, window = started, max(1, steps.total // _LINES_OF_LOG), _Window(started)
        end = 0
        with steps.log.open("a", encoding="utf-8") as log:

            def tell(kind: str, epoch: int, values: dict[str, float]) -> None:
                seconds = time.monotonic() - started
                line: dict[str, Any] = {"kind": kind, "step": self._step, "of": steps.total, "epoch": epoch}
                line |= {"epochs": len(steps.batches)}
                line |= {name: float(f"{value:.5g}") for name, value in values.items()}
                left = seconds / max(1, self._step - first) * (steps.total - self._step)
                line |= {"seconds": round(seconds, 1), "seconds_left": round(left)}
                log.write(json.dumps(line) + "\n")
                log.flush()
                self._report(line)

            for epoch, batches in enumerate(steps.batches, 1):
                start, end = end, end + len(batches)
                while start <= self._step < end:
                    batch = [steps.learnt[index] for index in batches[self._step - start]]
                    window.add(batch, *self._learn(batch))
                    if self._step % every == 0 or self._step == end:
                        tell("train", epoch, window.values() | {"rate": self._rate(self._step - 1)})
                        window = _Window(time.monotonic())
                    if self._step == end and steps.held_out:
                        tell("held_out", epoch, self._measure())
                    if self._step == end or time.monotonic() - saved >= steps.save_every_s:
                        save_state(steps.state, self._updates, self._optimizer, {"step": self._step})
                        saved = time.monotonic()

    def _learn(self, batch: list[Sample]) -> tuple[float, int]:
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(self._step)
        loss, num_right = self._learner.loss(batch)
        (loss * self._scale).backward()  # type: ignore[no-untyped-call]
        if self._scale != 1:
            for parameter in self._updates.parameters():
                if parameter.grad is not None:
                    parameter.grad /= self._scale
        norm = nn.utils.clip_grad_norm_(self._updates.parameters(), _CLIP_NORM)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"the gradient at step {self._step + 1} is no number; a lower --learning-rate, or --dtype bfloat16 or "
                "float32, can help"
            )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._step += 1
        return loss.item(), num_right

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0: warm-up, then a line down to nothing."""
        total = self._steps.total
        warm_up = max(1, round(total * _WARM_UP))
        return self._steps.learning_rate * min((step + 1) / warm_up, (total - step) / max(1, total - warm_up))

    @torch.no_grad()
    def _measure(self) -> dict[str, float]:
        """Return loss and share of likeliest tokens over what is held out, every token counting the same."""
        held_out, window = self._steps.held_out, _Window(time.monotonic())
        lengths = [len(sample.token_ids) for sample in held_out]
        order = sorted(range(len(held_out)), key=lambda index: lengths[index])
        for indices in in_batches(order, lengths, self._steps.batch_tokens):
            batch = [held_out[index] for index in indices]
            loss, num_right = self._learner.loss(batch)
            window.add(batch, loss.item(), num_right)
        return window.values()


class _Window:
    """Sums over some batches."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._loss = 0.0
        self._num_right = self._num_targets = self._num_tokens = 0

    def add(self, batch: list[Sample], loss: float, num_right: int) -> None:
        num_targets = sum(len(sample.targets) for sample in batch)
        self._loss += loss * num_targets
        self._num_right += num_right
        self._num_targets += num_targets
        self._num_tokens += sum(len(sample.token_ids) for sample in batch)

    def values(self) -> dict[str, float]:
        """Return means; `tokens` is the share of learnt tokens that were the likeliest."""
        seconds = max(1e-9, time.monotonic() - self._started)
        return {
            "loss": self._loss / self._num_targets,
            "tokens": self._num_right / self._num_targets,
            "tokens_per_second": self._num_tokens / seconds,
        }
