"""A whole run of `mezzo train vision`: stages one after the other in one folder, and what is shipped at the end.

The folder holds for each stage NAME.safetensors (state, to go on from), NAME.jsonl (log), and besides curves.png,
run.json (what the run was started with) and package/ (what mezzo ships).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer

from mezzo.engine.loader import CannotLoad, resolve_device
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.train.chat import TURN_END, TURN_START
from mezzo.train.data.fonts import Split
from mezzo.train.data.source import Source
from mezzo.train.errors import CannotTrain
from mezzo.train.filters import start_from_edges
from mezzo.train.log import read_log
from mezzo.train.loop import Pace, Stage, run_stage
from mezzo.train.package import read_package, write_package
from mezzo.train.plot import draw_curves
from mezzo.train.recipe import Recipe, StageRecipe
from mezzo.train.recipes import WORDS
from mezzo.train.run_folder import claim_folder
from mezzo.train.stages import Lessons
from mezzo.train.state import load_state
from mezzo.train.team import Member, team
from mezzo.train.text import TextSource
from mezzo.train.vision_half import VisionHalf
from mezzo.weights.sources import NANO
from mezzo.weights.vision_half import IMAGE, IMAGE_BREAK, IMAGE_END

_CELLS_TO_START_FROM = 3000


def image_tokens(language: Path) -> tuple[int, int, int]:
    """Return the ids of [IMG], [IMG_BREAK] and [IMG_END], or of the unused tokens that nano has in their place.

    Raises: CannotTrain for a tokenizer with neither, or one that nano's chat format cannot be written with.
    """
    path = language / "tokenizer.json"
    if not path.is_file():
        raise CannotTrain(f"{language} has no tokenizer.json")
    tokenizer = Tokenizer.from_file(str(path))
    if missing := [name for name in (TURN_START, TURN_END) if tokenizer.token_to_id(name) is None]:
        raise CannotTrain(
            f"{language} has no token {' and no '.join(missing)}: nano's chat format is written with them"
        )
    half = NANO.vision
    assert half is not None
    for names in ((IMAGE, IMAGE_BREAK, IMAGE_END), tuple(half.renamed_tokens)):
        image, line_break, end = (tokenizer.token_to_id(name) for name in names)
        if image is not None and line_break is not None and end is not None:
            return image, line_break, end
    raise CannotTrain(f"{language} has no tokens for images: {IMAGE}, {IMAGE_BREAK}, {IMAGE_END}")


def training_device(name: str) -> torch.device:
    """Return the device called `name`, or with `auto` a GPU where there is one. Raises: CannotTrain."""
    try:
        return resolve_device(name)
    except CannotLoad as error:
        raise CannotTrain(f"there is no device {name!r} here") from error


@dataclass(frozen=True)
class VisionRun:
    """Where a run is, what it follows and what it runs on.

    language       checkpoint folder of text alone, whose decoder learns to see
    image_tokens   ids that stand for a cell, the end of a row of cells, and the end of a picture
    start          package of an earlier run to go on from, None to start from edges
    processes      that train, each on its share of the CPU's cores
    """

    folder: Path
    recipe: Recipe
    language: Path
    image_tokens: tuple[int, int, int]
    device: torch.device
    pace: Pace
    start: Path | None = None
    processes: int = 1

    def train(self, report: Callable[[dict[str, Any]], None]) -> Path:
        """Run the stages that are not done, then write curves and package. Returns the package's folder.

        `report` is called with each line of the logs. Raises: CannotTrain for a folder with another run in it, and
        what `run_stage` and `load_network` raise.
        """
        if self.processes > 1 and self.device.type != "cpu":
            raise CannotTrain(
                f"several processes train on a CPU alone; on {self.device} give a larger batch instead"
            )
        self._claim_folder()
        with team(self.processes, self._take_part) as member:
            lessons = self._run_stages(member, report)
        return self._write_package(lessons)

    def _take_part(self, member: Member) -> None:
        self._run_stages(member, lambda line: None)

    def _run_stages(self, member: Member, report: Callable[[dict[str, Any]], None]) -> Lessons:
        lessons = self._load()
        before: Path | None = None
        for recipe in self.recipe.stages:
            stage = self._stage(recipe)
            if before is not None and not stage.state.exists():
                load_state(before, lessons.half, None)
            run_stage(lessons, stage, self.pace.of(recipe), _of_stage(recipe.name, report), member)
            before = stage.state
        return lessons

    def package(self) -> Path:
        """Write curves and package from what is saved, wherever the run is. Returns the package's folder.

        Raises: CannotTrain for a folder with nothing saved in it.
        """
        if not self._saved_stages():
            raise CannotTrain(f"{self.folder} holds nothing that was trained yet")
        return self._write_package(self._load())

    def _saved_stages(self) -> list[Stage]:
        return [stage for stage in map(self._stage, self.recipe.stages) if stage.state.exists()]

    def _write_package(self, lessons: Lessons) -> Path:
        stages = self._saved_stages()
        load_state(stages[-1].state, lessons.half, None)
        draw_curves({stage.recipe.name: read_log(stage.log) for stage in stages}, self.folder / "curves.png")
        config = replace(lessons.decoder.config, vision=self.recipe.vision)
        write_package(lessons.half, config, self.folder / "package")
        return self.folder / "package"

    def _load(self) -> Lessons:
        config = ModelConfig.from_folder(self.language)
        if config.vision is not None:
            raise CannotTrain(
                f"{self.language} can see already; this trains a vision half for a model of text"
            )
        if config.sliding_window is not None:
            raise CannotTrain(f"{self.language} attends within a window; training reads whole conversations")
        network = load_network(self.language, config, dtype=torch.float32, device=torch.device("cpu"))
        torch.manual_seed(self.recipe.seed)
        half = VisionHalf(self.recipe.vision, network.decoder, self.recipe.lora_rank)
        tokenizer = Tokenizer.from_file(str(self._tokenizer_json))
        half.codes.start_from(network.decoder.tok_embeddings.weight.detach(), tokenizer, self.recipe.seed)
        if not self._stage(self.recipe.stages[0]).state.exists():
            self._begin(half, config)
        network.to(self.device)
        half.to(self.device)
        return Lessons(half, network.decoder, self.image_tokens[0])

    def _begin(self, half: VisionHalf, config: ModelConfig) -> None:
        if self.start is None:
            letters = self._source(self._first_pictures(), "train").open().batch(0)
            start_from_edges(half.vision, torch.from_numpy(letters.pixels))
            return
        try:
            read_package(half, replace(config, vision=self.recipe.vision), self.start)
        except (OSError, ValueError, SafetensorError) as error:
            raise CannotTrain(f"cannot go on from {self.start}: {error}") from error

    def _first_pictures(self) -> StageRecipe:
        """Return a stage of many pictures that only serve to see what edges are like in them."""
        return replace(self.recipe.stages[0], mixture=replace(WORDS, ramp=0), cells=_CELLS_TO_START_FROM)

    def _stage(self, recipe: StageRecipe) -> Stage:
        return Stage(
            recipe=recipe,
            folder=self.folder,
            train=self._source(recipe, "train"),
            held_out=self._source(recipe, "held_out"),
            text=TextSource(self._tokenizer_json, self.recipe.seed),
        )

    def _source(self, recipe: StageRecipe, split: Split) -> Source:
        return Source(
            mixture=recipe.mixture,
            seed=self.recipe.seed,
            split=split,
            cells_in_batch=recipe.cells,
            patch_size=self.recipe.vision.patch_size,
            merge_size=self.recipe.vision.spatial_merge_size,
            tokenizer_json=self._tokenizer_json,
            image_tokens=self.image_tokens,
        )

    @property
    def _tokenizer_json(self) -> Path:
        return self.language / "tokenizer.json"

    def _claim_folder(self) -> None:
        """A run that goes on must be the same run: other sizes would not load, other pictures would be a mixture."""
        wanted = json.loads(json.dumps(asdict(self.recipe)))
        if claim_folder(self.folder, wanted) != wanted:
            raise CannotTrain(
                f"{self.folder} holds a run of another recipe; give another folder, or the same recipe"
            )


def _of_stage(name: str, report: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    return lambda line: report({"stage": name} | line)
