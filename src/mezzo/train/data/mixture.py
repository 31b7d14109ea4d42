"""Which pictures a stage of training sees: kinds, sizes, how often. Sample number n is the same on every machine.

(As far as its fonts are the same: they are found on the machine.)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from mezzo.train.data.fonts import Split
from mezzo.train.data.material import Lexicon, Material
from mezzo.train.data.picture import Canvas, Picture
from mezzo.train.data.scenes import shapes, text

Scene = Callable[[Material, int, int], Canvas]

SCENES: dict[str, Scene] = {"letters": text.letters, "plain_page": text.plain_page, "page": text.page, "line": text.line, "shapes": shapes.scatter}


@dataclass(frozen=True)
class Size:
    """Height and width of pictures, in cells: what becomes one token of the decoder."""

    rows: int
    columns: int

    @property
    def cells(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True)
class Mixture:
    """Weights of scenes and of sizes; each scene goes with each size.

    ramp   batches until scenes that grow harder are as hard as they get
    """

    scenes: tuple[tuple[str, float], ...]
    sizes: tuple[tuple[Size, float], ...]
    ramp: int = 0

    def progress(self, number: int) -> float:
        """Return how hard batch `number` is, 0 to 1."""
        return min(1.0, number / self.ramp) if self.ramp else 1.0

    def size(self, rng: random.Random) -> Size:
        sizes, weights = zip(*self.sizes, strict=True)
        return rng.choices(sizes, weights)[0]

    def scene(self, rng: random.Random) -> str:
        names, weights = zip(*self.scenes, strict=True)
        return rng.choices(names, weights)[0]


def draw(
    name: str,
    rng: random.Random,
    size: Size,
    cell: int,
    *,
    split: Split,
    lexicon: Lexicon,
    progress: float = 1.0,
) -> Picture:
    """Draw one picture of the scene `name`; `cell` is the edge of a cell in pixels."""
    material = Material(rng, split, lexicon, progress)
    canvas = SCENES[name](material, size.columns * cell, size.rows * cell)
    return canvas.finish(rng)


def batch_of_pictures(
    mixture: Mixture, seed: int, number: int, cells: int, cell: int, *, split: Split, lexicon: Lexicon
) -> list[Picture]:
    """Draw batch `number`: pictures of one size, together about `cells` cells, at least one."""
    rng = random.Random(f"{seed}/{split}/{number}")
    size = mixture.size(rng)
    progress = mixture.progress(number)
    return [
        draw(
            mixture.scene(rng),
            random.Random(rng.getrandbits(64)),
            size,
            cell,
            split=split,
            lexicon=lexicon,
            progress=progress,
        )
        for _ in range(max(1, round(cells / size.cells)))
    ]
