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
from mezzo.train.data.scenes import (
    bar_charts,
    cards,
    forms,
    invoices,
    line_charts,
    pie_charts,
    receipts,
    screens,
    shapes,
    signs,
    tables,
    text,
)

Scene = Callable[[Material, int, int], Canvas]

SCENES: dict[str, Scene] = {
    "letters": text.letters,
    "plain_page": text.plain_page,
    "page": text.page,
    "line": text.line,
    "shapes": shapes.scatter,
    "sign": signs.sign,
    "receipt": receipts.receipt,
    "invoice": invoices.invoice,
    "form": forms.form,
    "table": tables.table,
    "card": cards.card,
    "screen": screens.screen,
    "bar_chart": bar_charts.bar_chart,
    "line_chart": line_charts.line_chart,
    "pie_chart": pie_charts.pie_chart,
}


@dataclass(frozen=True)
class Size:
    """Height and width of pictures, in cells: what becomes one token of the decoder."""

    rows: int
    columns: int

    @property
    def cells(self) -> int:
        return self.rows * self.columns


SAMPLE_SIZES: dict[str, Size] = {
    name: {"letters": Size(2, 3), "line": Size(2, 7), "receipt": Size(9, 7), "invoice": Size(9, 8)}.get(
        name, Size(6, 8)
    )
    for name in SCENES
}
"""Of the pictures that are shown to people."""


@dataclass(frozen=True)
class Part:
    """Scenes that go with some sizes, and how often this part has a batch, as a weight. Scenes have weights too."""

    weight: float
    scenes: tuple[tuple[str, float], ...]
    sizes: tuple[Size, ...]

    def scene(self, rng: random.Random) -> str:
        names = [name for name, _ in self.scenes]
        return rng.choices(names, [weight for _, weight in self.scenes])[0]


@dataclass(frozen=True)
class Mixture:
    """What a stage sees. A batch is of one part and one size.

    ramp   batches until scenes that grow harder are as hard as they get
    """

    parts: tuple[Part, ...]
    ramp: int = 0

    def part(self, rng: random.Random) -> Part:
        return rng.choices(self.parts, [part.weight for part in self.parts])[0]

    def progress(self, number: int) -> float:
        """Return how hard batch `number` is, 0 to 1."""
        return min(1.0, number / self.ramp) if self.ramp else 1.0


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
    part = mixture.part(rng)
    size = rng.choice(part.sizes)
    progress = mixture.progress(number)
    return [
        draw(
            part.scene(rng),
            random.Random(rng.getrandbits(64)),
            size,
            cell,
            split=split,
            lexicon=lexicon,
            progress=progress,
        )
        for _ in range(max(1, round(cells / size.cells)))
    ]


def samples(count: int, seed: int, *, split: Split, lexicon: Lexicon) -> list[Picture]:
    """Draw `count` pictures of every scene, to be looked at; cells of 32 pixels."""
    return [
        draw(name, random.Random(f"{seed}/{name}/{number}"), size, 32, split=split, lexicon=lexicon)
        for name, size in SAMPLE_SIZES.items()
        for number in range(count)
    ]
