"""What makes an encoder learn to read sooner: pages at once, letters that start to move, a start from edges.

    python -m benchmarks.vision_lessons LANGUAGE [--steps 400]

LANGUAGE is the folder that `mezzo pull nano-text` prints. Each way trains the encoder of the recipe `cpu` for so many
steps of 64 cells; printed are seconds, the loss, and the share of characters named right in held-out single letters and
in held-out plain pages.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.train.data.fonts import Split
from mezzo.train.data.mixture import Mixture, Part, Size
from mezzo.train.data.source import Source, batches
from mezzo.train.filters import start_from_edges
from mezzo.train.loop import parameter_groups, rate_factor
from mezzo.train.recipe import StageRecipe
from mezzo.train.recipes import CPU, LETTERS
from mezzo.train.stages import Lessons
from mezzo.train.vision_half import VisionHalf
from mezzo.train.vision_run import image_tokens

SIZES = (Size(2, 2), Size(1, 3))
PAGES = Mixture((Part(1, (("plain_page", 1.0),), SIZES),))
ALL_LETTERS = replace(LETTERS, ramp=0)


@dataclass(frozen=True)
class Way:
    """A way to begin: what is looked at, and whether edge detectors are put in."""

    name: str
    mixture: Mixture
    from_edges: bool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("language", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    easing = replace(LETTERS, ramp=4 * arguments.steps)
    print("| way | s | loss | letters at the last step's ease | letters anywhere | plain pages |")
    print("| --- | --- | --- | --- | --- | --- |")
    for way in (
        Way("pages at once", PAGES, from_edges=False),
        Way("letters anywhere at once", ALL_LETTERS, from_edges=False),
        Way("letters that start to move", easing, from_edges=False),
        Way("the same, from edges", easing, from_edges=True),
    ):
        print(f"| {way.name} | {run(way, arguments.language, arguments.steps)} |", flush=True)


def run(way: Way, language: Path, steps: int) -> str:
    """Train and return a row of the table."""
    config = ModelConfig.from_folder(language)
    decoder = load_network(language, config, dtype=torch.float32, device=torch.device("cpu")).decoder
    torch.manual_seed(CPU.seed)
    half = VisionHalf(CPU.vision, decoder, CPU.lora_rank)
    tokenizer = Tokenizer.from_file(str(language / "tokenizer.json"))
    half.codes.start_from(decoder.tok_embeddings.weight.detach(), tokenizer, CPU.seed)
    if way.from_edges:
        pictures = source(PAGES, "train", 3000, language).open().batch(0)
        start_from_edges(half.vision, torch.from_numpy(pictures.pixels))
    lessons = Lessons(half, decoder, CPU.vision.image_token_id)
    recipe = StageRecipe(way.name, "encoder", way.mixture, steps, 64, 6e-4, warmup=50, decay=0.01)
    groups = parameter_groups(half, recipe)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.97), fused=True)
    last: list[float] = []
    started = time.perf_counter()
    with batches(source(way.mixture, "train", 64, language), 0, 1) as drawn:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * rate_factor(step, recipe)
            loss, _ = lessons.encoder(next(drawn))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            last = [*last[-19:], loss.item()]
    seconds = time.perf_counter() - started
    shares = [
        f"{share(lessons, source(mixture, 'held_out', 600, language), number):.1%}"
        for mixture, number in ((way.mixture, steps), (ALL_LETTERS, 0), (PAGES, 0))
    ]
    return " | ".join([f"{seconds:.0f}", f"{sum(last) / len(last):.2f}", *shares])


@torch.no_grad()
def share(lessons: Lessons, pictures: Source, number: int) -> float:
    """Return the share of characters named right in batch `number`."""
    _, shares = lessons.encoder(pictures.open().batch(number))
    return shares["chars"]


def source(mixture: Mixture, split: Split, cells: int, language: Path) -> Source:
    return Source(
        mixture, CPU.seed, split, cells, CPU.vision.patch_size, CPU.vision.spatial_merge_size,
        language / "tokenizer.json", image_tokens(language),
    )  # fmt: skip


if __name__ == "__main__":
    main()
