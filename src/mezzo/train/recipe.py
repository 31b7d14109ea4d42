"""How a vision half is trained: its shape, and for each stage what it sees, how long and how fast it learns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mezzo.model.vision_config import VisionConfig
from mezzo.train.data.mixture import Mixture

Lesson = Literal["decoder", "encoder", "joint"]
"""Of `mezzo.train.stages`."""


@dataclass(frozen=True)
class StageRecipe:
    """One stage; `name` is what its files are called.

    cells            about how many cells (tokens of pictures) a step sees
    learning_rate    at its highest; linear warm-up over `warmup` steps, linear decay to 0 over the last `decay` of all
    encoder_rate, projector_rate
                     of encoder and projector in the joint stage, as parts of learning_rate; 0 leaves it as it is
    text_tokens      tokens of plain text, on which the decoder is held to what it said before
    text_every       steps between two looks at them, each of which counts for all: a pass over few tokens costs a CPU
                     nearly what one over many does
    """

    name: str
    lesson: Lesson
    mixture: Mixture
    steps: int
    cells: int
    learning_rate: float
    encoder_rate: float = 1.0
    projector_rate: float = 1.0
    warmup: int = 100
    decay: float = 0.3
    text_tokens: int = 0
    text_every: int = 1


@dataclass(frozen=True)
class Recipe:
    """All stages, in their order, and the shape of what they train."""

    vision: VisionConfig
    lora_rank: int
    stages: tuple[StageRecipe, ...]
    seed: int = 1

    def scaled(self, factor: float) -> Recipe:
        """Return the recipe with each stage's steps multiplied, at least one step each."""
        stages = tuple(replace(s, steps=max(1, round(s.steps * factor))) for s in self.stages)
        return replace(self, stages=stages)

    def only(self, names: list[str]) -> Recipe:
        """Return the recipe with some of its stages. Raises: KeyError for a name that is none of them."""
        by_name = {stage.name: stage for stage in self.stages}
        chosen = {name: by_name[name] for name in names}
        return replace(self, stages=tuple(stage for stage in self.stages if stage.name in chosen))
