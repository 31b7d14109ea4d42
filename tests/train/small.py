"""A language model, a recipe and a run that are small enough to be trained in a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.model.vision_config import VisionConfig
from mezzo.train import vision_half
from mezzo.train.chat import ChatFormat
from mezzo.train.data import fonts
from mezzo.train.data.fonts import Face, Families, Split
from mezzo.train.data.mixture import Mixture, Part, Size
from mezzo.train.data.source import Source
from mezzo.train.loop import Pace, Stage
from mezzo.train.package import write_package
from mezzo.train.recipe import Recipe, StageRecipe
from mezzo.train.stages import Lessons
from mezzo.train.text import TextSource
from mezzo.train.vision_run import VisionRun, image_tokens
from mezzo.weights import SilentProgress
from mezzo.weights.convert import Origin, convert_gguf
from mezzo.weights.sources import NANO
from mezzo.weights.vision_half import CHAT_TEMPLATE, VisionHalf
from tests.weights.conftest import CONTROL_TOKENS, GgufRecipe, byte_alphabet

CPU = torch.device("cpu")
assert NANO.vision is not None
IMAGE_TOKENS = tuple(NANO.vision.renamed_tokens)
"""Names of the tokens for a cell, the end of a row and the end of a picture, before they are renamed."""
_WORDS = ("apple", "river", "stone", "bright", "cloud", "market", "paper", "lantern", "violet", "harbor")


class SmallLanguage(GgufRecipe):
    """A tiny model of text with a few English words, and with nano's spare tokens."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(
            **{"hidden": 32, "inner": 48, "num_heads": 2, "num_kv_heads": 1, "spare": list(IMAGE_TOKENS)}
            | changes
        )
        self.metadata = {"tokenizer.ggml.merges": _merges(), "llama.context_length": 2048} | self.metadata
        random = np.random.default_rng(3)
        self.tensors = {
            name: (random.standard_normal(shape) * 0.15 + (len(shape) == 1)).astype(np.float32)
            for name, shape in self.shapes().items()
        }

    def all_tokens(self) -> list[str]:
        return [
            *CONTROL_TOKENS,
            *self.spare,
            *byte_alphabet(),
            *(merge.replace(" ", "") for merge in _merges()),
        ]


def _merges() -> list[str]:
    """Each beginning of a word is a token, and so is the word."""
    parts = [f"Ġ{word[:end]} {word[end]}" for word in _WORDS for end in range(len(word))]
    return list(dict.fromkeys(parts))


def write_language(folder: Path) -> Path:
    """Write the checkpoint of a SmallLanguage into `folder / "language"`."""
    gguf = SmallLanguage().write(folder / "language.gguf")
    target = folder / "language"
    convert_gguf(
        gguf, target, origin=Origin("language.gguf", "0" * 64), progress=SilentProgress(), vision=None
    )
    return target


def write_seeing(lessons: Lessons, folder: Path) -> Path:
    """Write the package of what `lessons` trained and the small language model with it, as mezzo ships nano."""
    package = folder / "package"
    config = replace(lessons.decoder.config, vision=VISION)
    write_package(lessons.half, config, package)
    assert NANO.vision is not None
    (package / CHAT_TEMPLATE).write_text(NANO.vision.chat_template())
    gguf, target = SmallLanguage().write(folder / "small.gguf"), folder / "seeing"
    vision = VisionHalf(package, *IMAGE_TOKENS)
    convert_gguf(
        gguf, target, origin=Origin("small.gguf", "0" * 64), progress=SilentProgress(), vision=vision
    )
    return target


@cache
def packaged_families() -> Families:
    """Return the three families inside matplotlib's wheel: two for training, one held out."""
    found: dict[str, list[Face]] = {}
    for path in fonts._packaged_fonts():
        family = fonts._usable_family(path)
        assert family is not None
        found.setdefault(family, []).append(Face(family, str(path)))
    return tuple(tuple(group) for _, group in sorted(found.items()))


VISION = VisionConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    patch_size=8,
    image_size=160,
    rope_theta=100.0,
    spatial_merge_size=2,
    image_token_id=3,
    projector_norm=True,
    patch_merger=True,
)
LINES = Mixture((Part(1, (("line", 0.5), ("shapes", 0.5)), (Size(2, 6), Size(3, 4))),))
RECIPE = Recipe(
    vision=VISION,
    lora_rank=2,
    stages=(
        StageRecipe("cells", "decoder", LINES, 4, 12, 1e-3, warmup=2, text_tokens=64),
        StageRecipe("words", "encoder", LINES, 6, 24, 1e-3, warmup=2),
        StageRecipe("joint", "joint", LINES, 4, 12, 1e-3, encoder_rate=0.5, warmup=2, text_tokens=64),
    ),
)
TWO_LESSONS = RECIPE.only(["cells", "words"])
PACE = Pace(log_every=1, evaluate_every=3, save_every=2, held_out_batches=1)


def make_source(
    language: Path, mixture: Mixture = LINES, *, split: Split = "train", cells: int = 24
) -> Source:
    return Source(
        mixture=mixture,
        seed=1,
        split=split,
        cells_in_batch=cells,
        patch_size=VISION.patch_size,
        merge_size=VISION.spatial_merge_size,
        tokenizer_json=language / "tokenizer.json",
        image_tokens=image_tokens(language),
    )


def make_chat(language: Path) -> ChatFormat:
    return make_source(language).open().chat


def make_lessons(language: Path, seed: int = 1) -> Lessons:
    """Return a vision half as a run begins with, but for its edges, beside the small language model."""
    network = load_network(language, ModelConfig.from_folder(language), dtype=torch.float32, device=CPU)
    torch.manual_seed(seed)
    half = vision_half.VisionHalf(VISION, network.decoder, RECIPE.lora_rank)
    tokenizer = make_chat(language).tokenizer
    half.codes.start_from(network.decoder.tok_embeddings.weight.detach(), tokenizer, seed)
    return Lessons(half, network.decoder, image_tokens(language)[0])


def make_stage(language: Path, folder: Path, recipe: StageRecipe) -> Stage:
    return Stage(
        recipe=recipe,
        folder=folder,
        train=make_source(language, recipe.mixture, cells=recipe.cells),
        held_out=make_source(language, recipe.mixture, split="held_out", cells=recipe.cells),
        text=TextSource(language / "tokenizer.json", 1),
    )


def make_run(language: Path, folder: Path, recipe: Recipe = RECIPE, start: Path | None = None) -> VisionRun:
    return VisionRun(folder, recipe, language, image_tokens(language), CPU, PACE, start)


def main(arguments: Sequence[str]) -> None:
    """Train TWO_LESSONS of LANGUAGE in FOLDER from START by N processes, this one first; print what is reported."""
    language, folder, start = map(Path, arguments[:3])
    torch.set_num_threads(1)
    fonts.remember(packaged_families())
    run = replace(make_run(language, folder, TWO_LESSONS, start), processes=int(arguments[3]))
    run.train(lambda line: print(json.dumps(line), flush=True))  # noqa: T201


def write_start(language: Path, folder: Path) -> Path:
    """Write a package to start from: edges are found by least squares, which are not the same to the bit."""
    lessons = make_lessons(language)
    write_package(lessons.half, replace(lessons.decoder.config, vision=VISION), folder)
    return folder


def training_process(language: Path, folder: Path, start: Path, *, processes: int = 1) -> list[str]:
    """Return the command line of a process that runs `main`."""
    arguments = map(str, (language, folder, start, processes))
    return [sys.executable, "-m", "tests.train.small", *arguments]


def train_until_killed(language: Path, folder: Path, start: Path, *, processes: int = 1) -> None:
    """Train in a process of its own, and kill it amid the second lesson, right after a step that was not saved."""
    process = subprocess.Popen(
        training_process(language, folder, start, processes=processes),
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    for line in process.stdout:
        told = json.loads(line)
        if told["stage"] == "words" and told["step"] == 3:
            process.kill()
            break
    process.wait()
    process.stdout.close()
    assert (folder / "cells.safetensors").exists()
    assert not (folder / "package").exists()


def environment() -> dict[str, str]:
    """Return this process's environment, with mezzo and its tests to be imported."""
    root = Path(__file__).parents[2]
    return os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main(sys.argv[1:])
