"""Plain shapes: which there are, in which colour, how many, and where they stand to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mezzo.train.data import colours
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas

SHAPES = ("circle", "square", "triangle", "star", "rectangle", "diamond", "pentagon", "hexagon", "heart", "cross",
          "arrow", "ring")  # fmt: skip
_EASY = ("circle", "square", "triangle", "star")
_EASY_SHARE = {"train": 0.15, "held_out": 0.5}  # of pictures; the rarer kinds take longer to learn
_PLURALS = {"cross": "crosses"}


@dataclass(frozen=True)
class Thing:
    """A shape on the picture: `x`, `y` its middle and `radius` in pixels."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float


class _Add(Protocol):
    """Notes a question: one of the wordings `seen` in training, or `held_out`."""

    def __call__(self, skill: str, answer: str, seen: tuple[str, ...], held_out: str) -> None: ...


def scatter(material: Material, width: int, height: int) -> Canvas:
    """Draw one to six shapes that do not touch, and ask about them."""
    rng = material.rng
    paper_name = rng.choice(("white", "white", "white", "black", "grey", rng.choice(colours.NAMES)))
    canvas = Canvas(width, height, colours.shade(rng, paper_name))
    kinds: Sequence[str] = _EASY if rng.random() < _EASY_SHARE[material.split] else SHAPES
    palette = [name for name in colours.NAMES if name != paper_name]
    if rng.random() < 0.4:  # many of a kind, so that counting is worth a question
        kinds, palette = rng.sample(kinds, 2), rng.sample(palette, 2)
    things = _place(
        material, width, height, kinds, palette, rng.randint(1, max(1, min(6, width * height // 3000)))
    )
    for thing in things:
        _draw(canvas, material, thing)
    _ask(canvas, material, things)
    return canvas


def _place(
    material: Material,
    width: int,
    height: int,
    kinds: Sequence[str],
    palette: Sequence[str],
    count: int,
) -> list[Thing]:
    rng = material.rng
    things: list[Thing] = []
    largest = min(width, height) / 2 * (0.9 if count == 1 else 0.75 if count < 4 else 0.5)
    for _ in range(40):
        if len(things) == count:
            break
        radius = (
            rng.uniform(min(9, largest * 0.5), largest) if count > 1 else rng.uniform(largest * 0.3, largest)
        )
        x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        if all(math.dist((x, y), (o.x, o.y)) > (radius + o.radius) * 1.05 for o in things):
            things.append(Thing(rng.choice(kinds), rng.choice(palette), x, y, radius))
    return things


def _draw(canvas: Canvas, material: Material, thing: Thing) -> None:
    fill = colours.shade(material.rng, thing.colour)
    x, y, r = thing.x, thing.y, thing.radius
    if thing.shape in ("circle", "ring"):
        hole = material.rng.uniform(0.5, 0.7) if thing.shape == "ring" else 0.0
        canvas.ellipse(thing.shape, thing.colour, fill, (x - r, y - r, x + r, y + r), hole)
    else:
        turn = material.rng.uniform(-0.25, 0.25) if material.rng.random() < 0.3 else 0.0
        canvas.area(thing.shape, thing.colour, fill, outline(thing.shape, x, y, r, turn))


def outline(shape: str, x: float, y: float, r: float, turn: float = 0.0) -> list[tuple[float, float]]:
    """Return the corners of a shape that fits a circle of radius `r`, turned by `turn` radians."""
    points = {
        "square": _regular(4, 45), "triangle": _regular(3, -90), "diamond": _regular(4, 0),
        "pentagon": _regular(5, -90), "hexagon": _regular(6, 0),
        "rectangle": [(-0.92, -0.45), (0.92, -0.45), (0.92, 0.45), (-0.92, 0.45)],
        "star": [(math.cos(a) * s, math.sin(a) * s) for a, s in
                 ((math.radians(-90 + 36 * i), 1.0 if i % 2 == 0 else 0.42) for i in range(10))],
        "cross": [(-.3, -.95), (.3, -.95), (.3, -.3), (.95, -.3), (.95, .3), (.3, .3), (.3, .95), (-.3, .95),
                  (-.3, .3), (-.95, .3), (-.95, -.3), (-.3, -.3)],
        "arrow": [(-.95, -.25), (.15, -.25), (.15, -.7), (.95, 0), (.15, .7), (.15, .25), (-.95, .25)],
        "heart": [(0.055 * 16 * math.sin(t) ** 3,
                   -0.055 * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)))
                  for t in (2 * math.pi * i / 40 for i in range(40))],
    }[shape]  # fmt: skip
    cos, sin = math.cos(turn), math.sin(turn)
    return [(x + r * (px * cos - py * sin), y + r * (px * sin + py * cos)) for px, py in points]


def _regular(corners: int, first: float) -> list[tuple[float, float]]:
    angles = [math.radians(first + 360 * i / corners) for i in range(corners)]
    return [(math.cos(a), math.sin(a)) for a in angles]


def _ask(canvas: Canvas, material: Material, things: list[Thing]) -> None:
    rng, train = material.rng, material.split == "train"
    questions: list[tuple[str, str, str]] = []

    def add(skill: str, answer: str, seen: tuple[str, ...], held_out: str) -> None:
        questions.append((rng.choice(seen) if train else held_out, answer, skill))

    shapes, used = {t.shape for t in things}, {t.colour for t in things}
    for thing in things:
        if sum(t.shape == thing.shape for t in things) == 1:
            add(
                "colour",
                thing.colour,
                (
                    f"What colour is the {thing.shape}?",
                    f"What color is the {thing.shape}?",
                    f"The {thing.shape} has which colour?",
                ),
                f"Name the colour of the {thing.shape}.",
            )
        if sum(t.colour == thing.colour for t in things) == 1:
            add(
                "shape",
                thing.shape,
                (
                    f"Which shape is {thing.colour}?",
                    f"What is the {thing.colour} shape?",
                    f"What shape is {thing.colour}?",
                ),
                f"Name the {thing.colour} shape.",
            )
    if len(things) == 1:
        add(
            "shape",
            things[0].shape,
            ("What shape is this?", "Which shape is in the picture?", "What shape do you see?"),
            "Name this shape.",
        )
        add(
            "colour",
            things[0].colour,
            ("What colour is it?", "What color is the shape?", "Which colour does the shape have?"),
            "Tell me its colour.",
        )
    add(
        "count",
        str(len(things)),
        ("How many shapes are there?", "Count the shapes."),
        "What is the number of shapes?",
    )
    shape, colour = rng.choice(sorted(shapes)), rng.choice(sorted(used))
    plural = _PLURALS.get(shape, shape + "s")
    add(
        "count",
        str(sum(t.shape == shape for t in things)),
        (f"How many {plural} are there?", f"Count the {plural}."),
        f"What is the number of {plural}?",
    )
    add(
        "count",
        str(sum(t.colour == colour for t in things)),
        (f"How many {colour} shapes are there?", f"Count the {colour} shapes."),
        f"What is the number of {colour} shapes?",
    )
    asked = rng.choice(SHAPES if rng.random() < 0.5 else sorted(shapes))
    add(
        "presence",
        "yes" if asked in shapes else "no",
        (f"Is there a {asked}?", f"Do you see a {asked}?"),
        f"Can a {asked} be seen?",
    )
    _ask_relations(add, material, things)
    rng.shuffle(questions)
    for question in questions[:4]:
        canvas.ask(*question)


def _ask_relations(add: _Add, material: Material, things: list[Thing]) -> None:
    if len(things) < 2:
        return
    first, second = material.rng.sample(things, 2)
    if (first.shape, first.colour) == (second.shape, second.colour):
        return
    across, down = first.x - second.x, first.y - second.y
    if max(abs(across), abs(down)) < 1.5 * min(abs(across), abs(down)):
        return  # neither beside nor above
    if abs(across) > abs(down):
        answer = "left" if across < 0 else "right"
        ends = "left or right of"
    else:
        answer = "above" if down < 0 else "below"
        ends = "above or below"
    a, b = f"{first.colour} {first.shape}", f"{second.colour} {second.shape}"
    counts = [(t.shape, t.colour) for t in things]
    if counts.count((first.shape, first.colour)) == counts.count((second.shape, second.colour)) == 1:
        add("relation", answer, (f"Is the {a} {ends} the {b}?",), f"The {a}: {ends} the {b}?")
