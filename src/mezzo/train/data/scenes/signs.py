"""Signs of roads, shops, doors and platforms: a coloured plate with a word or a number."""

from __future__ import annotations

import math

from mezzo.train.data import colours
from mezzo.train.data.colours import RGB
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas
from mezzo.train.data.scenes.common import Box, Pen, Questions, Wording, ink_on, mixed, rectangle, tilt
from mezzo.train.data.scenes.shapes import outline
from mezzo.train.data.vocabulary import STREETS, Halves, firm

ROAD_WORDS = Halves(
    ("STOP", "YIELD", "SLOW", "ONE WAY", "NO ENTRY", "DETOUR", "BUS", "TAXI", "SCHOOL", "TOLL", "ROAD WORK"),
    ("HALT", "GIVE WAY", "DEAD END", "TRAM", "BRIDGE", "TURN LEFT"),
)
DOOR_WORDS = Halves(
    ("OPEN", "CLOSED", "EXIT", "ENTRY", "PUSH", "PULL", "SALE", "FREE", "Private", "Toilet", "No Smoking", "Office",
     "Hotel", "Parking", "Welcome", "Ticket", "Keep Out", "Staff Only", "Danger", "Reception", "Elevator"),
    ("WAY OUT", "Sold Out", "For Rent", "Library", "Quiet", "Do Not Enter", "Museum", "Caution", "Stairs", "Garage"),
)  # fmt: skip
LIMITS = Halves(
    ("10", "20", "30", "40", "50", "60", "80", "90", "100", "110", "120"),
    ("15", "25", "45", "70", "130", "35"),
)
PLATFORM_WORDS = Halves(
    ("Platform", "Gate", "Track", "Room", "Line", "Exit"), ("Bay", "Hall", "Stop", "Level")
)

TEXT = Wording(
    ("What does the sign say?", "Read the sign.", "What is written on the sign?", "What is on the sign?"),
    ("Which text does the sign show?", "Tell me what this sign says."),
    "sign",
)
TEXT_OF = Wording(
    ("What does the {colour} sign say?", "Read the {colour} sign.", "What is written on the {colour} sign?"),
    ("Which text does the {colour} sign show?",),
    "sign",
)
LIMIT = Wording(
    ("What is the speed limit?", "How fast may one drive?", "Which speed limit is shown?"),
    ("Which number is in the ring?", "State the top speed allowed here."),
    "sign",
)
NUMBER = Wording(
    ("Which {word} is this?", "What number is on the sign?", "What is the number of the {word}?"),
    ("Read the number on the plate.",),
    "sign",
)
COLOUR = Wording(
    ("What colour is the sign?", "What color is the sign?", "Which colour does the sign have?"),
    ("Name the colour of the sign.",),
    "sign_colour",
)
COLOUR_OF = Wording(
    ("What colour is the sign that says {text}?", "Which colour is the {text} sign?"),
    ("Name the colour of the plate with {text}.",),
    "sign_colour",
)
SHAPE = Wording(
    ("What shape is the sign?", "Which shape does the sign have?"),
    ("Name the shape of the plate.",),
    "sign_shape",
)
COUNT = Wording(
    ("How many signs are there?", "Count the signs."), ("What number of signs is there?",), "sign_count"
)

_PLATES = ("red", "blue", "green", "yellow", "orange", "white", "black", "brown")


def sign(material: Material, width: int, height: int) -> Canvas:
    """Draw one sign, or two where there is room, and ask what is on it."""
    rng = material.rng
    around = colours.shade(rng, rng.choice(("grey", "cyan", "white", "black", "brown", "green")))
    canvas = Canvas(width, height, around)
    _surroundings(material, canvas)
    questions = Questions(material)
    longer = max(width, height)
    if longer > 240 and longer > 1.2 * min(width, height) and rng.random() < 0.5:
        two = rng.sample(_PLATES, 2)
        across = width > height
        boxes: tuple[Box, Box] = (
            ((0, 0, width / 2, height), (width / 2, 0, width, height)) if across
            else ((0, 0, width, height / 2), (0, height / 2, width, height))
        )  # fmt: skip
        texts = DOOR_WORDS.sample(material, 2)
        for colour, box, text in zip(two, boxes, texts, strict=True):
            shape = rng.choice(("rectangle", "rectangle", "circle"))
            _plate(material, canvas, box, shape, colour, [text])
            questions.add(TEXT_OF, text, colour=colour)
            questions.add(COLOUR_OF, colour, text=text)
        questions.add(COUNT, "2")
    else:
        _single(material, canvas, questions)
    questions.ask(canvas)
    tilt(canvas, material, 0.02 * min(width, height))
    return canvas


def _single(material: Material, canvas: Canvas, questions: Questions) -> None:
    rng = material.rng
    whole: Box = (0, 0, canvas.width, canvas.height)
    colour = rng.choice(_PLATES)
    kind = rng.random()
    shape = "rectangle"
    if kind < 0.2:
        shape, lines = "circle", [LIMITS.pick(material)]
        questions.add(LIMIT, lines[0])
        colour = "white"
    elif kind < 0.4:
        shape, lines = rng.choice(("triangle", "diamond", "hexagon", "circle")), [ROAD_WORDS.pick(material)]
        if lines[0] in ("STOP", "HALT"):
            shape, colour = "octagon", "red"
    elif kind < 0.55:
        word = PLATFORM_WORDS.pick(material)
        number = rng.choice((str(rng.randint(1, 30)), f"{rng.choice('ABCDEFG')}{rng.randint(1, 40)}"))
        lines = [word, number]
        questions.add(NUMBER, number, word=word.lower())
    elif kind < 0.65:
        lines = [str(material.integer(1, 999)), *([STREETS.pick(material)] if rng.random() < 0.5 else [])]
        questions.add(NUMBER, lines[0], word="house")
    elif kind < 0.75:
        lines = [firm(material)]
    else:
        lines = [DOOR_WORDS.pick(material) if rng.random() < 0.75 else material.words(rng.randint(1, 2), 9)]
    shape = "square" if shape == "rectangle" and rng.random() < 0.2 else shape
    _plate(material, canvas, whole, shape, colour, lines, ringed=kind < 0.2)
    questions.add(TEXT, " ".join(lines))
    questions.add(SHAPE, shape)
    if kind >= 0.2:
        questions.add(COLOUR, colour)


def _plate(
    material: Material,
    canvas: Canvas,
    box: Box,
    shape: str,
    colour: str,
    lines: list[str],
    *,
    ringed: bool = False,
) -> None:
    """Draw a plate in the middle of a box, and its text as large as the shape allows, or somewhat smaller."""
    rng = material.rng
    left, top, right, bottom = box
    fill = colours.shade(rng, colour)
    if colours.distance(fill, canvas.paper) < 100:  # a white plate on a white wall
        canvas.draw.rectangle(box, fill=mixed(canvas.paper, ink_on(canvas.paper), 0.6))
    most = min(right - left, bottom - top) / 2 * 0.94
    radius = most * rng.uniform(0.85 if most < 90 else 0.65, 1)
    if shape == "rectangle":
        half_x, half_y = (right - left) * rng.uniform(0.4, 0.47), radius * rng.uniform(0.5, 1)
        if half_x < 1.15 * half_y:
            half_y = half_x / 1.3
    else:
        half_x = half_y = radius
    x = left + half_x + 2 + (right - left - 2 * half_x - 4) * rng.uniform(0.25, 0.75)
    y = top + half_y + 2 + (bottom - top - 2 * half_y - 4) * rng.uniform(0.25, 0.75)
    ink = ink_on(fill)
    if shape == "rectangle":
        _framed(
            canvas, colour, fill, (x - half_x, y - half_y, x + half_x, y + half_y), ink, rng.random() < 0.5
        )
    elif shape == "circle":
        around: Box = (x - radius, y - radius, x + radius, y + radius)
        canvas.ellipse("circle", colour, fill, around)
        if ringed:
            canvas.ellipse("ring", "red", colours.shade(rng, "red"), around, rng.uniform(0.74, 0.82))
    elif shape == "octagon":
        at = [math.radians(22.5 + 45 * corner) for corner in range(8)]
        for scale, paint in ((1.0, ink), (0.94, fill)):
            canvas.draw.polygon(
                [(x + radius * scale * math.cos(a), y + radius * scale * math.sin(a)) for a in at], paint
            )
    else:
        canvas.area(shape, colour, fill, outline(shape, x, y, radius * (1.0 if shape != "triangle" else 1.1)))
    across, high, lower = {
        "rectangle": (1.75, 1.6, 0.0), "square": (1.2, 1.1, 0.0), "circle": (1.3, 0.95, 0.0),
        "octagon": (1.6, 0.9, 0.0), "triangle": (0.95, 0.62, 0.2), "diamond": (1.05, 0.75, 0.0),
        "hexagon": (1.35, 1.0, 0.0),
    }[shape]  # fmt: skip
    across, high = across * half_x, high * half_y
    lines = [part for line in lines for part in (line.split() if across < 2.5 * high else [line])]
    high /= len(lines)
    share = rng.uniform(0.7, 1)
    pens = Pen(canvas, material.font(max(12, min(110, round(high / 1.25 * share)))), ink)
    for number, line in enumerate(lines):
        middle = y + lower * radius + (number + 0.5 - len(lines) / 2) * high
        pens.fitted(line, across).write(x, middle, line, 0.5)


def _framed(canvas: Canvas, colour: str, fill: RGB, box: Box, ink: RGB, with_line: bool) -> None:
    left, top, right, bottom = box
    canvas.area("rectangle", colour, fill, rectangle(box))
    if with_line:
        inset = max(2.0, 0.03 * (bottom - top))
        inner = (left + inset, top + inset, right - inset, bottom - inset)
        canvas.draw.rectangle(inner, outline=ink, width=max(1, round(0.015 * (bottom - top))))


def _surroundings(material: Material, canvas: Canvas) -> None:
    """Hang the sign before a wall, or stand it on a pole under the sky."""
    rng = material.rng
    darker = mixed(canvas.paper, (0, 0, 0), rng.uniform(0.1, 0.3))
    kind = rng.random()
    if kind < 0.25:
        horizon = canvas.height * rng.uniform(0.6, 0.9)
        canvas.draw.rectangle((0, horizon, canvas.width, canvas.height), fill=darker)
        pole = canvas.width * rng.uniform(0.01, 0.03)
        canvas.draw.rectangle(
            (canvas.width / 2 - pole, canvas.height / 2, canvas.width / 2 + pole, canvas.height),
            fill=(110, 110, 115),
        )
    elif kind < 0.45:
        step = rng.randint(14, 40)
        for y in range(rng.randrange(step), canvas.height, step):
            canvas.draw.line((0, y, canvas.width, y), fill=darker)
