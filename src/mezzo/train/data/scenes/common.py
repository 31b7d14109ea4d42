"""What scenes share: pens that know how much room a text takes, and wordings that are split like everything else."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import ImageFont

from mezzo.train.data import colours, fonts
from mezzo.train.data.colours import RGB
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas, Turn
from mezzo.train.data.vocabulary import Halves

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Wording(Halves):
    """Ways to ask for one thing, with `{fields}` to fill in, and the skill that the answer shows."""

    skill: str


class Questions:
    """Everything that could be asked about a picture, of which some is asked."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._turns: dict[Wording, list[Turn]] = {}

    def add(self, wording: Wording, answer: str, **fields: str) -> None:
        turn = Turn(wording.pick(self._material).format(**fields), answer, wording.skill)
        self._turns.setdefault(wording, []).append(turn)

    def ask(self, canvas: Canvas) -> None:
        """Ask 2 to 5 questions; what can be asked of nine items comes up three times as often as what there is once."""
        rng = self._material.rng
        for _ in range(rng.randint(2, 5)):
            if not self._turns:
                break
            (wording,) = rng.choices(list(self._turns), [len(turns) ** 0.5 for turns in self._turns.values()])
            turns = self._turns[wording]
            turn = turns.pop(rng.randrange(len(turns)))
            if not turns:
                del self._turns[wording]
            canvas.ask(turn.question, turn.answer, turn.skill)


@dataclass(frozen=True)
class Pen:
    """Letters of one face, size and colour. Texts are placed by the middle of their small letters."""

    canvas: Canvas
    font: ImageFont.FreeTypeFont
    ink: RGB

    @property
    def size(self) -> int:
        return round(self.font.size)

    @property
    def height(self) -> int:
        """Pixels from one line to the next."""
        return round(self.font.size * 1.3)

    def width(self, text: str) -> float:
        return self.font.getlength(text)

    def widest(self, texts: list[str]) -> float:
        return max(map(self.width, texts), default=0.0)

    def write(self, x: float, middle: float, text: str, anchor: float = 0.0) -> None:
        """Write a text that starts (anchor 0), is centred (0.5) or ends (1) at x."""
        ascent, _ = self.font.getmetrics()
        if anchor:
            x -= anchor * self.width(text)
        self.canvas.text(x, middle - ascent + 0.33 * self.font.size, text, self.font, self.ink)

    def resized(self, size: float, least: int = 12) -> Pen:
        return Pen(self.canvas, fonts.load(str(self.font.path), max(least, round(size))), self.ink)

    def fitted(self, text: str, room: float, height: float = 1000) -> Pen:
        """Return this pen, or a smaller one of the same face in which the text is no wider than the room."""
        share = min(1.0, room / max(1.0, self.width(text)), height / self.height)
        return self if share >= 1 else self.resized(math.floor(self.size * share), 8)

    def in_ink(self, ink: RGB) -> Pen:
        return Pen(self.canvas, self.font, ink)

    def first_that_fits(self, make: Callable[[], str], room: float) -> str:
        """Return the first of a few attempts that is no wider than the room, or ""."""
        return next((text for text in (make() for _ in range(8)) if self.width(text) <= room), "")


def pen(material: Material, canvas: Canvas, ink: RGB, lines: float, columns: float) -> Pen:
    """Return letters of which `lines` lines of `columns` characters fit the canvas: 13 to 28 pixels, as a rule."""
    most = min(28.0, canvas.height / (lines * 1.3), canvas.width / (columns * 0.56))
    size = round(material.rng.uniform(13, max(13.5, most)))
    for _ in range(4):  # among the faces are some twice as wide as others
        font = material.font(size)
        wide = font.getlength("Total amount 12.50") / 18 * columns
        if wide <= canvas.width * 0.9:
            break
    else:
        font = fonts.load(str(font.path), max(10, min(size, round(size * 0.95 * canvas.width / wide))))
    return Pen(canvas, font, ink)


def paper_and_ink(rng: random.Random) -> tuple[RGB, RGB]:
    """Return what documents are: dark on light as a rule."""
    if rng.random() < 0.15:
        ink, paper = colours.ink_and_paper(rng, least_contrast=110)
        return paper, ink
    level = rng.randint(238, 255)
    paper = (level, max(0, level - rng.randint(0, 6)), max(0, level - rng.randint(0, 14)))
    dark = rng.randint(0, 60)
    return paper, (dark, dark, min(255, dark + rng.randint(0, 30)))


def mixed(first: RGB, second: RGB, share: float) -> RGB:
    """Return a colour that is `share` of the way from the first to the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def ink_on(fill: RGB) -> RGB:
    """Return black or white, whichever is easier to read on a colour."""
    return (255, 255, 255) if colours.luminance(fill) < 140 else (15, 15, 15)


def rectangle(box: Box) -> list[tuple[float, float]]:
    """Return the corners of a box."""
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def on_desk(
    material: Material, width: int, height: int, paper: RGB, *, narrowest: float = 0.6
) -> tuple[Canvas, Box]:
    """Lay a sheet of paper on something of another colour, or fill the picture with it; return the sheet's box."""
    rng = material.rng
    if min(width, height) < 220 or rng.random() < 0.35:
        return Canvas(width, height, paper), (0, 0, width, height)
    while True:
        desk = colours.any_colour(rng)
        if colours.distance(desk, paper) > 60:
            break
    canvas = Canvas(width, height, desk)
    share = rng.uniform(max(narrowest, 210 / width), 1)
    left = rng.uniform(0, width * (1 - share))
    top = rng.uniform(0, height * 0.05)
    box = (left + 4, top + 4, left + width * share - 4, height - rng.uniform(4, height * 0.05))
    canvas.draw.rectangle(box, fill=paper)
    return canvas, box


def tilt(canvas: Canvas, material: Material, margin: float) -> None:
    """Turn the picture a little, sometimes, but by no more than its margin allows."""
    if material.rng.random() < 0.15:
        most = math.degrees(margin / (max(canvas.width, canvas.height) / 2))
        canvas.rotate(material.rng.uniform(-most, most))
