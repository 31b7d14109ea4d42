"""The loop of a stage: draw, learn, tell, save; it goes on where it was killed, to the step and the picture."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mezzo.engine.loader import resolve_dtype
from mezzo.train.data.source import Batch, Source, batches
from mezzo.train.log import forget_lines_after
from mezzo.train.recipe import StageRecipe
from mezzo.train.stages import Lessons
from mezzo.train.state import load_state, save_state
from mezzo.train.team import ALONE, Member
from mezzo.train.text import TextSource
from mezzo.train.vision_half import VisionHalf

_SMOOTHING = 0.95
_CLIP_NORM = 1.0


@dataclass(frozen=True)
class Pace:
    """How often a stage tells, measures and saves, in steps; num_workers draw pictures."""

    log_every: int = 25
    evaluate_every: int = 200
    save_every: int = 200
    held_out_batches: int = 4
    num_workers: int = 1

    def saves_after(self, step: int, recipe: StageRecipe) -> bool:
        """Return whether the state is saved when so many steps are done."""
        return step % self.save_every == 0 or step == recipe.steps

    def of(self, recipe: StageRecipe) -> Pace:
        """Return the pace of a stage: a step with the decoder in it takes ten times as long as one without."""
        if recipe.lesson == "encoder":
            return self
        log, evaluate, save = (max(1, n // 8) for n in (self.log_every, self.evaluate_every, self.save_every))
        return replace(self, log_every=log, evaluate_every=evaluate, save_every=save)


@dataclass(frozen=True)
class Stage:
    """A stage on its way: where its state and its log are, and what it draws from."""

    recipe: StageRecipe
    folder: Path
    train: Source
    held_out: Source
    text: TextSource

    @property
    def state(self) -> Path:
        return self.folder / f"{self.recipe.name}.safetensors"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.recipe.name}.jsonl"


def run_stage(
    lessons: Lessons,
    stage: Stage,
    pace: Pace,
    report: Callable[[dict[str, Any]], None],
    member: Member = ALONE,
) -> None:
    """Train until the stage's last step; what was done before a kill is not done again.

    `report` is called with each line of the log, in the process of rank 0. Raises: FloatingPointError when the loss is
    no number any more; RuntimeError when the pictures end; what `Member.average` raises.
    """
    half, recipe = lessons.half, stage.recipe
    optimizer = torch.optim.AdamW(parameter_groups(half, recipe), betas=(0.9, 0.97), fused=True)
    step = 0
    if stage.state.exists():
        step = int(load_state(stage.state, half, optimizer)["step"])
    told = forget_lines_after(stage.log, step) if member.rank == 0 else []
    if step >= recipe.steps:
        return
    member.average(optimizer)  # all have read what is saved, and begin with the same bits
    with closing(_learn(lessons, stage, pace, optimizer, step, member)) as steps:
        if member.rank == 0:
            _tell_and_save(steps, lessons, stage, pace, optimizer, told, report)
        else:
            for _ in steps:
                pass
    member.meet()  # what is saved is whole


def _learn(
    lessons: Lessons, stage: Stage, pace: Pace, optimizer: torch.optim.Optimizer, first: int, member: Member
) -> Generator[tuple[int, dict[str, float]]]:
    """Take the steps from `first` on. Yields after each how many are done, and what was measured in it."""
    recipe = stage.recipe
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    with batches(stage.train, member.turn(first), pace.num_workers, member.size) as drawn:
        for step in range(first, recipe.steps):
            factor = rate_factor(step, recipe)
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * factor
            torch.manual_seed(noise_seed(stage.train.seed, recipe.name, member.turn(step)))
            text = stage.text if recipe.text_tokens and step % recipe.text_every == 0 else None
            values = _step(lessons, recipe, next(drawn), text, member.turn(step // recipe.text_every))
            norm = nn.utils.clip_grad_norm_(parameters, _CLIP_NORM)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"the gradient at step {step} is no number")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done = step + 1
            if member.averages_after(done) or pace.saves_after(done, recipe):
                member.average(optimizer)
            yield done, values | {"norm": float(norm), "rate": recipe.learning_rate * factor}


def _tell_and_save(
    steps: Iterator[tuple[int, dict[str, float]]],
    lessons: Lessons,
    stage: Stage,
    pace: Pace,
    optimizer: torch.optim.Optimizer,
    told: list[dict[str, Any]],
    report: Callable[[dict[str, Any]], None],
) -> None:
    """Write the log and the state while steps are taken. `told` is what the log holds already."""
    recipe = stage.recipe
    smooth: dict[str, float] = {}
    held_out: list[Batch] = []  # drawn when they are first wanted
    started = time.monotonic()
    before = told[-1]["seconds"] if told else 0.0
    with stage.log.open("a", encoding="utf-8") as log:

        def tell(kind: str, step: int, values: dict[str, float]) -> None:
            seconds = before + time.monotonic() - started
            line = {"kind": kind, "step": step, "of": recipe.steps, "seconds": round(seconds, 1)}
            line |= {name: round(value, 4) for name, value in values.items()}
            log.write(json.dumps(line) + "\n")
            log.flush()
            report(line)

        for taken, (step, values) in enumerate(steps, start=1):
            rate = values.pop("rate")
            for name, value in values.items():
                smooth[name] = smooth.get(name, value) * _SMOOTHING + value * (1 - _SMOOTHING)
            last = step == recipe.steps
            if step % pace.log_every == 0 or last:
                speed = taken / (time.monotonic() - started)
                tell("train", step, smooth | {"rate": rate, "steps_per_second": speed})
            if step % pace.evaluate_every == 0 or last:
                held_out = held_out or _drawn(stage.held_out, pace.held_out_batches)
                tell("held_out", step, evaluate(lessons, recipe, held_out))
            if pace.saves_after(step, recipe):
                save_state(stage.state, lessons.half, optimizer, {"step": step, "stage": recipe.name})


def _step(
    lessons: Lessons, recipe: StageRecipe, batch: Batch, text: TextSource | None, text_number: int
) -> dict[str, float]:
    """Add the gradients of a batch, and of a batch of plain text unless it is None. Returns what was measured."""
    with autocast(lessons.device):
        loss, values = lesson(lessons, recipe)(batch)
        values["loss"] = loss.item()
        if text is not None:
            language = lessons.language(text.batch(text_number, recipe.text_tokens).to(lessons.device))
            values["language"] = language.item()
            loss = loss + recipe.text_every * language
    loss.backward()  # type: ignore[no-untyped-call]
    return values


def lesson(lessons: Lessons, recipe: StageRecipe) -> Callable[[Batch], tuple[Tensor, dict[str, float]]]:
    """Return what a stage computes from a batch."""
    return {"decoder": lessons.decoder_alone, "encoder": lessons.encoder, "joint": lessons.joint}[
        recipe.lesson
    ]


def _drawn(source: Source, num_batches: int) -> list[Batch]:
    opened = source.open()
    return [opened.batch(number) for number in range(num_batches)]


@torch.no_grad()
def evaluate(lessons: Lessons, recipe: StageRecipe, held_out: list[Batch]) -> dict[str, float]:
    """Return means over held-out pictures."""
    sums: dict[str, float] = {}
    lessons.half.eval()
    for batch in held_out:
        with autocast(lessons.device):
            loss, values = lesson(lessons, recipe)(batch)
        for name, value in (values | {"loss": loss.item()}).items():
            sums[name] = sums.get(name, 0.0) + value / len(held_out)
    lessons.half.train()
    return sums


def parameter_groups(half: VisionHalf, recipe: StageRecipe) -> list[dict[str, Any]]:
    """Return what a stage trains, each group with its highest learning rate."""
    for parameter in half.parameters():
        parameter.requires_grad_(False)

    def group(modules: list[nn.Module], rate: float, weight_decay: float = 0.0) -> Iterator[dict[str, Any]]:
        parameters = [p for module in modules for p in module.parameters()]
        for is_matrix in (True, False):
            chosen = [p.requires_grad_() for p in parameters if (p.ndim > 1) == is_matrix]
            if chosen:
                decay = weight_decay if is_matrix else 0.0
                yield {"params": chosen, "lr": rate, "highest": rate, "weight_decay": decay}

    rate = recipe.learning_rate
    if recipe.lesson == "encoder":
        return list(group([half.vision, half.heads], rate, 0.05))
    if recipe.lesson == "decoder":
        return list(group([half.lora], rate))
    groups = [*group([half.lora], rate)]
    if recipe.projector_rate:
        groups += group([half.vision.projector, half.heads], rate * recipe.projector_rate, 0.05)
    if recipe.encoder_rate:
        groups += group([half.vision.encoder], rate * recipe.encoder_rate, 0.05)
    return groups


def noise_seed(seed: int, stage: str, step: int) -> int:
    """Return what a step's noise is drawn from: the same after a kill as without one."""
    return zlib.crc32(f"{seed}/{stage}/{step}".encode())


def rate_factor(step: int, recipe: StageRecipe) -> float:
    """Return the learning rate of a step as a part of the highest: warm-up, plateau, linear decay."""
    rising = (step + 1) / max(1, recipe.warmup)
    falling = (recipe.steps - step) / max(1.0, recipe.steps * recipe.decay)
    return min(1.0, rising, falling)


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Compute products in bfloat16 where the device multiplies it natively."""
    if resolve_dtype("auto", device) is torch.bfloat16:
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
