"""A picture on its way: pixels, and beside them what is in it, so that questions and labels cannot be wrong.

Whatever draws, draws through a `Canvas`. It notes the centre of each character and paints a second, invisible picture
in which each filled shape has the number of its kind and colour. Distortions move both.
"""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mezzo.train.data import colours, fonts
from mezzo.train.data.colours import RGB

# Kinds of filled areas that the encoder learns to tell apart before it meets a decoder. 0 is nothing.
KINDS = (
    "", "circle", "square", "triangle", "star", "rectangle", "diamond", "pentagon", "hexagon", "heart", "cross",
    "arrow", "ring", "bar", "slice", "line",
)  # fmt: skip


@dataclass(frozen=True)
class Glyph:
    """A character and the pixel that its middle is at; the space between two words is one too.

    line    number of the run of text that it belongs to, counted over the picture
    """

    char: str
    x: float
    y: float
    line: int


@dataclass(frozen=True)
class Turn:
    """A question about a picture, or anything else a user says, and the answer.

    skill    what it tests, for the table of accuracies; "" where it is not counted
    """

    question: str
    answer: str
    skill: str = ""


@dataclass(frozen=True)
class Picture:
    """A finished picture.

    pixels   uint8 (height, width, 3) RGB
    areas    uint8 (height, width): 0, or index into KINDS * 16 + index into colours.NAMES of what is painted there
    glyphs   of all text, in reading order as it was drawn
    centres  (x, y) in pixels of the middle of each filled thing
    turns    questions with their answers; all are true of this picture
    """

    pixels: NDArray[np.uint8]
    areas: NDArray[np.uint8]
    glyphs: tuple[Glyph, ...]
    centres: tuple[tuple[float, float], ...]
    turns: tuple[Turn, ...]


@dataclass
class Canvas:
    """Something to draw on, in pixels from the upper left corner."""

    width: int
    height: int
    paper: RGB
    image: Image.Image = field(init=False)
    areas: Image.Image = field(init=False)
    glyphs: list[Glyph] = field(default_factory=list)
    centres: list[tuple[float, float]] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    num_lines: int = 0

    def __post_init__(self) -> None:
        self.image = Image.new("RGB", (self.width, self.height), self.paper)
        self.areas = Image.new("L", (self.width, self.height), 0)
        self.draw = ImageDraw.Draw(self.image)
        self._draw_areas = ImageDraw.Draw(self.areas)

    def text(self, x: float, y: float, text: str, font: ImageFont.FreeTypeFont, ink: RGB) -> float:
        """Write a line whose ascender is at y, and return the x after it."""
        self.draw.text((x, y), text, font=font, fill=ink)
        ascent, _ = font.getmetrics()
        middle = y + ascent - 0.33 * font.size  # of a lower-case letter, near enough for a capital
        length = font.getlength(text)
        widths = [_width(str(font.path), font.size, char) for char in text]
        kerned = length / (sum(widths) or 1)  # kerning moves a middle by less than a pixel: spread it evenly
        before = x
        for char, width in zip(text, widths, strict=True):
            self.glyphs.append(Glyph(char, before + width * kerned / 2, middle, self.num_lines))
            before += width * kerned
        self.num_lines += 1
        return x + length

    def spaced_text(
        self, x: float, y: float, text: str, font: ImageFont.FreeTypeFont, ink: RGB, spacing: float
    ) -> float:
        """Write a line like `text`, with `spacing` pixels more between its characters."""
        line = self.num_lines
        for char in text:
            x = self.text(x, y, char, font, ink) + spacing
            self.glyphs[-1] = replace(self.glyphs[-1], line=line)
        self.num_lines = line + 1
        return x

    def area(self, kind: str, colour: str, fill: RGB, points: list[tuple[float, float]]) -> None:
        """Fill a polygon that is, or is part of, a thing of `kind` (of KINDS) in `colour` (of colours.NAMES)."""
        self.draw.polygon(points, fill=fill)
        self._draw_areas.polygon(points, fill=area_number(kind, colour))
        xs, ys = zip(*points, strict=True)
        self.centres.append(((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2))

    def ellipse(
        self, kind: str, colour: str, fill: RGB, box: tuple[float, float, float, float], hole: float = 0.0
    ) -> None:
        """Fill an ellipse; `hole` is the share of its diameter that stays paper."""
        number = area_number(kind, colour)
        self.centres.append(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
        if not hole:
            self.draw.ellipse(box, fill=fill)
            self._draw_areas.ellipse(box, fill=number)
            return
        width = max(1, round((box[2] - box[0]) * (1 - hole) / 2))
        self.draw.ellipse(box, outline=fill, width=width)
        self._draw_areas.ellipse(box, outline=number, width=width)

    def slice(
        self,
        colour: str,
        fill: RGB,
        box: tuple[float, float, float, float],
        start: float,
        end: float,
    ) -> None:
        """Fill a slice of a pie, angles in degrees clockwise from three o'clock."""
        self.draw.pieslice(box, start, end, fill=fill)
        self._draw_areas.pieslice(box, start, end, fill=area_number("slice", colour))
        middle, reach = math.radians((start + end) / 2), 0.6
        self.centres.append(
            (
                (box[0] + box[2]) / 2 + math.cos(middle) * reach * (box[2] - box[0]) / 2,
                (box[1] + box[3]) / 2 + math.sin(middle) * reach * (box[3] - box[1]) / 2,
            )
        )

    def stroke(
        self, colour: str, fill: RGB, points: list[tuple[float, float]], width: int, kind: str = "line"
    ) -> None:
        """Draw a line through points."""
        self.draw.line(points, fill=fill, width=width, joint="curve")
        self._draw_areas.line(points, fill=area_number(kind, colour), width=width)

    def ask(self, question: str, answer: str, skill: str = "") -> None:
        """Add a question with its answer."""
        self.turns.append(Turn(question, answer, skill))

    def rotate(self, degrees: float) -> None:
        """Turn everything counter-clockwise around the middle; corners come out in the paper's colour."""
        self.image = self.image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=self.paper)
        self.areas = self.areas.rotate(degrees, Image.Resampling.NEAREST)
        self.draw, self._draw_areas = ImageDraw.Draw(self.image), ImageDraw.Draw(self.areas)
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        middle_x, middle_y = self.width / 2, self.height / 2

        def turned(x: float, y: float) -> tuple[float, float]:
            across, down = x - middle_x, y - middle_y
            return middle_x + across * cos + down * sin, middle_y - across * sin + down * cos

        self.glyphs = [Glyph(g.char, *turned(g.x, g.y), g.line) for g in self.glyphs]
        self.centres = [turned(x, y) for x, y in self.centres]

    def finish(self, rng: random.Random | None = None) -> Picture:
        """Return the picture; with `rng`, its pixels as a camera or a bad connection would leave them, sometimes."""
        pixels = np.asarray(self.image if rng is None else _weathered(self.image, rng))
        return Picture(
            np.ascontiguousarray(pixels),
            np.array(self.areas),
            tuple(self.glyphs),
            tuple(self.centres),
            tuple(self.turns),
        )


def area_number(kind: str, colour: str) -> int:
    """Return what `Picture.areas` has where a thing of `kind` in `colour` is."""
    return KINDS.index(kind) * 16 + colours.NAMES.index(colour)


@lru_cache(maxsize=100_000)
def _width(path: str, size: float, char: str) -> float:
    return fonts.load(path, int(size)).getlength(char)


def _weathered(image: Image.Image, rng: random.Random) -> Image.Image:
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    if rng.random() < 0.2:
        pixels = np.asarray(image).astype(np.int16)
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(2, 14), pixels.shape)
        image = Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))
    if rng.random() < 0.2:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=rng.randint(35, 90))
        image = Image.open(file)
        image.load()
    return image
